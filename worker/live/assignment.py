"""Which names share a long poll, and where each goes on."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Generic, Self, TypeVar

from worker.source.names import MAX_GROUPS, Names

Point = TypeVar("Point")


@dataclass(frozen=True, slots=True)
class Assignment(Generic[Point]):
    """Names that share a subscription, and the point to go on from.

    Without a point the names start anew.
    ``joined`` are names that were not followed up to the point.
    """

    names: Names
    resume_point: Point | None = None
    joined: Names = field(default_factory=Names)

    def joined_by(self, names: Names) -> Self:
        """Return this assignment with more of its names joined."""
        own = names.only(frozenset(self.names.all))
        return replace(self, joined=self.joined | own)


def assign(
    wanted: Names, followed: Iterable[tuple[Names, Point]], size: int
) -> list[Assignment[Point]]:
    """Share the names out, at most ``size`` each.

    A name that is followed stays with its point, the first one given.
    A new name joins others where there is room. So a list that changes
    every day does not end in a subscription for each name.
    """
    # Its cost is that of a look at each name: there may be 100,000.
    left = set(wanted.all)
    kept: list[tuple[Names, Point]] = []
    for names, point in followed:
        staying = names.only(frozenset(left.intersection(names.all)))
        left.difference_update(staying.all)
        kept += [(part, point) for part in staying.split(size)]

    new = wanted.only(frozenset(left))
    assignments: list[Assignment[Point]] = []
    for names, point in kept:
        joined = _fitting(new, names, size)
        if joined:
            new = new.without(frozenset(joined.all))
        assignments.append(Assignment(names | joined, point, joined))
    return assignments + [Assignment(part) for part in new.split(size)]


def _fitting(new: Names, names: Names, size: int) -> Names:
    """Return new names of their kind that fit beside ``names``."""
    count = len(names.all)
    room = size - count
    groups_room = min(size, MAX_GROUPS) - count
    if not new or room <= 0:
        return Names()
    if names.channels:
        joined = Names(channels=new.channels[:room])
    elif names.wildcards:
        joined = Names(wildcards=new.wildcards[:groups_room])
    else:
        joined = Names(groups=new.groups[:groups_room])
    polls = list((names | joined).split(size))
    return joined if len(polls) == 1 else Names()
