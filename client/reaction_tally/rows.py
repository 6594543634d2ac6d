"""The tallies of messages as they are read, and the page that they become."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from reaction_tally.keys import tally_parts
from reaction_tally.values import Message, Page, Reaction


@dataclass(slots=True)
class Row:
    """A tally. Empty text is what is not there, or was not read."""

    field: str
    count: str
    mine_at: str = ""
    first_at: str = ""
    last_at: str = ""
    names: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PageQuery:
    """What is asked about messages of a channel."""

    channel: str
    timetokens: Sequence[str]
    types: Sequence[str] | None = None
    me: str | None = None
    names: int = 0


def page_of(
    query: PageQuery,
    position: str,
    is_owed: Any,
    messages: Iterable[Iterable[Row]],
) -> Page:
    """Return the page of a query, from the rows of each message."""
    found: dict[str, Message] = {}
    for timetoken, rows in zip(query.timetokens, messages, strict=True):
        reactions = list(map(_reaction, rows))
        # A large hash of Redis has no order of its own.
        reactions.sort(key=_most_first)
        found[timetoken] = Message(timetoken, tuple(reactions))
    return Page(messages=found, position=position, in_doubt=bool(is_owed))


def _most_first(reaction: Reaction) -> tuple[int, str, str]:
    return -reaction.count, reaction.value, reaction.type


def _reaction(row: Row) -> Reaction:
    type, value = tally_parts(row.field)
    return Reaction(
        type=type,
        value=value,
        count=int(row.count),
        mine=bool(row.mine_at),
        mine_at=row.mine_at or None,
        first_at=row.first_at or None,
        last_at=row.last_at or None,
        names=tuple(row.names),
    )
