"""The messages of a channel with the most reactions.

The counts of each message are read. A sorted set of all messages would answer sooner, but then
every event and every message would pay for it.
"""

import heapq
from dataclasses import dataclass
from typing import Any, Final

from reaction_tally.keys import Keys, tally_field
from reaction_tally.operations import Command, Operation, Operations, Request, read_counts
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

    def is_wanted(self, timetoken: str) -> bool:
        """Tell whether a message is not too old."""
        return self.since is None or _age(timetoken) >= _age(self.since)


def read_top(operations: Operations, query: TopQuery) -> Operation[tuple[TopMessage, ...]]:
    """Return the messages with the highest counts, most first, then newest first."""
    messages = yield from _messages(operations, query)
    best: list[TopMessage] = []
    for start in range(0, len(messages), MESSAGES_AT_ONCE):
        some = messages[start : start + MESSAGES_AT_ONCE]
        commands = [_count_of(operations.keys, query, each) for each in some]
        replies = yield Request(commands)
        counts = [_read_count(query, reply) for reply in replies]
        counted = map(TopMessage, some, counts)
        best = heapq.nlargest(query.limit, [*best, *counted], key=_rank)
    return tuple(message for message in best if message.count > 0)


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
        seen.update(timetoken for timetoken, _ in page)
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


def _count_of(keys: Keys, query: TopQuery, timetoken: str) -> Command:
    """Return the command that reads the count of a message."""
    counts = keys.counts(query.channel, timetoken)
    if query.type is None or query.value is None:
        return "HGETALL", counts
    return "HGET", counts, tally_field(query.type, query.value)


def _read_count(query: TopQuery, reply: Any) -> int:
    if query.type is not None and query.value is not None:
        return int(check_reply(reply) or 0)
    return sum(
        count
        for type, values in read_counts(reply).items()
        for value, count in values.items()
        if query.type in (None, type) and query.value in (None, value)
    )


def _rank(message: TopMessage) -> tuple[int, int, str]:
    return message.count, *_age(message.timetoken)


def _age(timetoken: str) -> tuple[int, str]:
    """Return the sort key of a timetoken."""
    return len(timetoken), timetoken
