"""The tallies of messages as ``lua/page.lua`` answers them, and the page they become."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from reaction_tally.keys import tally_parts
from reaction_tally.values import Message, Page, Reaction

Row = Sequence[str]
"""A tally: its field, count, mine at, first at, last at, names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What is asked about messages of a channel."""

    channel: str
    timetokens: Sequence[str]
    types: Sequence[str] | None = None
    me: str | None = None
    names: int = 0


def page_of(
    query: Query,
    position: str,
    is_owed: Any,
    messages: Iterable[Sequence[Row]],
) -> Page:
    """Return the page of a query, from the rows of each message."""
    found: dict[str, Message] = {}
    for timetoken, rows in zip(query.timetokens, messages, strict=True):
        reactions = sorted(map(_reaction, rows), key=_most_first)
        found[timetoken] = Message(timetoken, tuple(reactions))
    return Page(messages=found, position=position, in_doubt=bool(is_owed))


def _reaction(row: Row) -> Reaction:
    field, count, mine_at, first_at, last_at, *names = row
    type, value = tally_parts(field)
    return Reaction(
        type=type,
        value=value,
        count=int(count),
        mine=bool(mine_at),
        mine_at=mine_at or None,
        first_at=first_at or None,
        last_at=last_at or None,
        names=tuple(names),
    )


def _most_first(reaction: Reaction) -> tuple[int, bool, int, str, str, str]:
    """Return the sort key: most first, then first seen. What is unknown comes last."""
    first = reaction.first_at or ""
    is_unknown = not first
    return (
        -reaction.count,
        is_unknown,
        len(first),
        first,
        reaction.type,
        reaction.value,
    )
