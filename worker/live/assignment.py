"""Which names share a long poll, and where each begins: a change of the list breaks off nobody's reading."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from worker.source.names import MAX_GROUPS, Names

Point = TypeVar("Point")


@dataclass(frozen=True, slots=True)
class Assignment(Generic[Point]):
    """Names that are followed together from a place on, ``joined`` by some that were not followed up to there.

    Without a place all of them begin anew.
    """

    names: Names
    resume_point: Point | None = None
    joined: Names = field(default_factory=Names)


def assign(
    wanted: Names, followed: Iterable[tuple[Names, Point]], size: int
) -> list[Assignment[Point]]:
    """Share the names out into lots of at most ``size``; those followed already stay with their place.

    Of several places a name has been followed from, the first one given is taken. Names that are new join lots that
    have room, so that a list that changes from day to day does not end in a subscription for each name.
    """
    left, assignments = wanted, list[Assignment[Point]]()
    for names, resume_point in followed:
        kept = left.only(frozenset(names.all))
        left = left.without(frozenset(kept.all))
        assignments += [Assignment(part, resume_point) for part in kept.split(size)]
    filled = []
    for assignment in assignments:
        joined = _fitting(left, assignment.names, size)
        left = left.without(frozenset(joined.all))
        filled.append(Assignment(assignment.names | joined, assignment.resume_point, joined))
    return filled + [Assignment(part) for part in left.split(size)]


def _fitting(new: Names, names: Names, size: int) -> Names:
    """Return those of the new names for which there is room beside the others, which are all of one kind."""
    few = min(size, MAX_GROUPS)
    if names.channels:
        joined = Names(channels=new.channels[: max(0, size - len(names.channels))])
    elif names.wildcards:
        joined = Names(wildcards=new.wildcards[: max(0, few - len(names.wildcards))])
    else:
        joined = Names(groups=new.groups[: max(0, few - len(names.groups))])
    return joined if len(list((names | joined).split(size))) == 1 else Names()
