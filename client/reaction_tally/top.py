"""The messages of a channel with the most reactions.

The counts of each message are read. A sorted set of all messages would answer sooner, but then
every event and every message would pay for it.
"""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from reaction_tally.operations import Operation, Operations, Request, read_counts
from reaction_tally.replies import check_reply, pairs, texts
from reaction_tally.values import TopMessage

MESSAGES_AT_ONCE: Final = 1_000
"""Messages of one round trip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopQuery:
    """What is counted of the messages of a channel."""

    channel: str
    type: str | None
    """None: every type."""
    value: str | None
    """None: every value."""
    since: str | None
    """The timetoken of the oldest message; None: every message."""
    limit: int

    @property
    def oldest_event(self) -> str:
        """The lowest score in the index of a wanted message: a reaction follows its message.

        A score is in milliseconds: 10,000 ticks of a timetoken, so four digits less.
        """
        return "-inf" if self.since is None else self.since[:-4] or "0"

    def count(self, reply: Any) -> int:
        """Return how much of a ``counts`` hash is counted."""
        counts = read_counts(reply)
        of_type = counts.get(self.type or "", {})
        chosen = counts.values() if self.type is None else [of_type]
        return sum(map(self._count_values, chosen))

    def _count_values(self, counts: Mapping[str, int]) -> int:
        if self.value is None:
            return sum(counts.values())
        return counts.get(self.value, 0)

    def is_wanted(self, timetoken: str) -> bool:
        """Tell whether a message is not too old."""
        return self.since is None or _age(timetoken) >= _age(self.since)


def read_top(operations: Operations, query: TopQuery) -> Operation[tuple[TopMessage, ...]]:
    """Return the messages with the highest counts, most first, then newest first."""
    messages = yield from _messages(operations, query)
    best: list[TopMessage] = []
    for start in range(0, len(messages), MESSAGES_AT_ONCE):
        some = messages[start : start + MESSAGES_AT_ONCE]
        counts = map(partial(operations.keys.counts, query.channel), some)
        replies = yield Request([("HGETALL", key) for key in counts])
        counted = map(TopMessage, some, map(query.count, replies))
        best = heapq.nlargest(query.limit, [*best, *counted], key=_rank)
    return tuple(filter(_has_any, best))


def _messages(operations: Operations, query: TopQuery) -> Operation[list[str]]:
    """Return the messages that are not too old.

    They are read from the newest event to older ones. A message with a new event moves to the front
    meanwhile. So what is new there is read at the end.
    """
    index = operations.keys.messages(query.channel)
    oldest = query.oldest_event
    seen: set[str] = set()
    first, last = "", "+inf"
    size = MESSAGES_AT_ONCE
    while True:
        read = ("ZREVRANGEBYSCORE", index, last, oldest, "WITHSCORES", "LIMIT", 0, size)
        schema, reply = yield Request([operations.schema, read])
        operations.expect_schema(schema)
        page = pairs(reply)
        known = len(seen)
        seen.update(dict(page))
        if len(page) < size:
            break
        first = first or _score(page[0])
        last = _score(page[-1])
        if len(seen) == known:
            size *= 2  # more messages than that have one time
    if first:  # there was more than one page
        (moved,) = yield Request([("ZRANGEBYSCORE", index, f"({first}", "+inf")])
        seen.update(texts(check_reply(moved)))
    return list(filter(query.is_wanted, seen))


def _score(entry: tuple[str, str]) -> str:
    """Return the score of a reply, as a command takes it."""
    _, score = entry
    return str(int(float(score)))


def _has_any(message: TopMessage) -> bool:
    return message.count > 0


def _rank(message: TopMessage) -> tuple[int, int, str]:
    return message.count, *_age(message.timetoken)


def _age(timetoken: str) -> tuple[int, str]:
    """Return the sort key of a timetoken."""
    return len(timetoken), timetoken
