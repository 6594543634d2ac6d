"""A follower of one channel's journal that knows only ``client/CONTRACT.md``."""

from typing import Any, Final, cast
from urllib.parse import unquote

from redis.asyncio import Redis

Tallies = dict[str, dict[str, int]]
"""Message timetoken → field of its ``counts`` hash → count."""

PAGE: Final = 5


class JournalFollower:
    """Holds a channel's counts as they were at ``position``.

    Without ``checks_after`` or ``checks_head`` it skips a step of the contract.
    Tests show what that step is for.
    """

    def __init__(
        self, redis: Redis, channel: str, *, checks_after: bool = True, checks_head: bool = True
    ) -> None:
        self._redis = cast("Any", redis)
        self._prefix = f"tally:{{{channel}}}:"
        self._checks_after = checks_after
        self._checks_head = checks_head
        self.position = ""
        self.tallies: Tallies = {}
        self.snapshots = 0
        self.held: dict[str, Tallies] = {}
        """What it held at each position it ever had."""

    async def catch_up(self) -> None:
        """Follow the journal to its end; take a new snapshot if an entry is missing."""
        if not self.position or not await self._follow():
            self.position, self.tallies = await snapshot(self._redis, self._prefix)
            self.snapshots += 1
            self._remember()

    async def _follow(self) -> bool:
        while True:
            head, page = await self._page()
            for entry_id, entry in page:
                if self._checks_after and entry["after"] != self.position:
                    return False
                self._apply(entry)
                self.position = entry_id
                self._remember()
            if len(page) < PAGE:
                return head == self.position or not self._checks_head

    async def _page(self) -> tuple[str, list[tuple[str, dict[str, str]]]]:
        pipe = self._redis.pipeline(transaction=True)
        pipe.get(self._prefix + "head")
        pipe.xrange(self._prefix + "journal", f"({self.position}", "+", count=PAGE)
        head, page = await pipe.execute()
        return head or "0-0", page

    def _apply(self, entry: dict[str, str]) -> None:
        for number in range(len(entry) - 2):
            event, _, _, count, message, field = entry[str(number)].split(" ", 5)
            if event == "expired":
                self.tallies.pop(message, None)
                continue
            type, value, _ = field.split(":", 2)
            counts = self.tallies.setdefault(message, {})
            counts[f"{type}:{unquote(value)}"] = int(count)
            self.tallies[message] = {tally: count for tally, count in counts.items() if count}

    def _remember(self) -> None:
        self.held[self.position] = {
            message: dict(counts) for message, counts in self.tallies.items() if counts
        }


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
            return head or "0-0", counts
        messages = indexed
