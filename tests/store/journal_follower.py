"""A follower of one channel's journal: the client's own, and snapshots as the contract has them."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final, cast

from redis.asyncio import Redis

from reaction_tally import Change
from reaction_tally.following import Reading
from reaction_tally.journal import START
from reaction_tally.keys import Keys, tally_field

Tallies = dict[str, dict[str, int]]
"""Message timetoken → field of its ``counts`` hash → count."""
KEYS: Final = Keys()


class JournalFollower:
    """Holds a channel's counts as they were at ``position``.

    Without ``checks_after`` or ``checks_head`` it hears that the step of the contract went well.
    Tests show what that step is for.
    """

    def __init__(
        self, redis: Redis, channel: str, *, checks_after: bool = True, checks_head: bool = True
    ) -> None:
        self._redis = cast("Any", redis)
        self._channel = channel
        self._checks_after = checks_after
        self._checks_head = checks_head
        self.position = ""
        self.tallies: Tallies = {}
        self.snapshots = 0
        self.held: dict[str, Tallies] = {}
        """What it held at each position it ever had."""

    async def catch_up(self) -> None:
        """Follow the journal to its end; take a new snapshot if the position is gone."""
        if not self.position or not await self._follow():
            prefix = KEYS.prefix(self._channel)
            self.position, self.tallies = await snapshot(self._redis, prefix)
            self.snapshots += 1
        self.held[self.position] = {
            message: dict(counts) for message, counts in self.tallies.items() if counts
        }

    async def _follow(self) -> bool:
        reading = Reading(KEYS, self._channel, self.position)
        while not reading.is_done:
            pipe = self._redis.pipeline(transaction=False)
            for command in reading.commands():
                pipe.execute_command(*command)
            head, entries, later_head = await pipe.execute(raise_on_error=False)
            if not self._checks_after:
                _chain(self.position, entries)
            if not self._checks_head:
                head = later_head = entries[-1][0] if entries else self.position
            reading.take((head, entries, later_head))
        changes = list(reading.items(self.position))
        self.position = reading.position
        return all(isinstance(change, Change) and self._apply(change) for change in changes)

    def _apply(self, change: Change) -> bool:
        message = change.message_timetoken
        if change.ends_message:
            self.tallies.pop(message, None)
            return True
        counts = self.tallies.setdefault(message, {})
        counts[tally_field(change.type, change.value)] = change.count
        self.tallies[message] = {tally: count for tally, count in counts.items() if count}
        return True


def _chain(position: str, entries: Sequence[tuple[str, dict[str, str]]]) -> None:
    """Let each entry say that it follows the one before it."""
    for (before, _), (_, fields) in pairwise([(position, {}), *entries]):
        fields["after"] = before


async def snapshot(redis: Any, prefix: str) -> tuple[str, Tallies]:
    """Return the head and all counts of a channel at one instant.

    The index is read in the same transaction. If it has more messages, all is read again.
    """
    messages: list[str] = []
    while True:
        pipe = redis.pipeline(transaction=True)
        pipe.get(prefix + "head")
        pipe.zrange(prefix + "messages", 0, -1)
        for message in messages:
            pipe.hgetall(f"{prefix}counts:{message}")
        head, indexed, *hashes = await pipe.execute()
        if set(indexed) <= set(messages):
            counts = {
                message: {tally: int(count) for tally, count in fields.items()}
                for message, fields in zip(messages, hashes, strict=True)
                if fields
            }
            return head or START, counts
        messages = indexed
