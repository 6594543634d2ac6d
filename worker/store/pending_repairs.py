"""Which channels need a repair, and why: the hash ``owed``."""

from collections.abc import Callable, Collection, Iterable, Mapping
from enum import StrEnum
from itertools import compress
from typing import Final

import structlog
from redis.asyncio import Redis

from reaction_tally.keys import Keys
from worker.store.heads import Heads
from worker.store.redis_retry import RedisRetry
from worker.store.scripts import call_script
from worker.store.table import Table, retried
from worker.telemetry import metrics


class GapCause(StrEnum):
    """Why a channel may lack events: a field of ``owed``."""

    FIRST_START = "first_start"
    """There was no cursor."""
    STALE_CURSOR = "stale_cursor"
    """PubNub's cache did not reach back to the cursor."""
    OVERFLOW = "overflow"
    """An answer was full: more may be lost."""
    FORBIDDEN = "forbidden"
    """PubNub refused the channel."""
    NEW_CHANNEL = "new_channel"
    """The channel was seen for the first time."""
    QUARANTINED = "quarantined"
    """Redis refused an event."""
    REDIS_WENT_BACK = "redis_went_back"
    """Redis holds an older state than before."""
    UNPROVEN = "unproven"
    """A reconcile could not prove something."""
    HALF_APPLIED = "half_applied"
    """An ACL refused a script, which may have written something before."""
    DAMAGED_KEY = "damaged_key"
    """Another program wrote a key of the channel."""


SELF_REPAIRED: Final = frozenset(
    {
        GapCause.FIRST_START.value,
        GapCause.STALE_CURSOR.value,
        GapCause.OVERFLOW.value,
        GapCause.NEW_CHANNEL.value,
        GapCause.REDIS_WENT_BACK.value,
        GapCause.HALF_APPLIED.value,
        GapCause.DAMAGED_KEY.value,
    }
)
"""Causes that a worker repairs by itself. The others may need a person."""
REPAIRED_WITHIN_SECONDS: Final = 86_400
"""A repair must have come within a day."""
AHEAD_SECONDS: Final = 30
"""How far in the future a mark may be: clocks of servers differ a little."""

Listener = Callable[[Collection[str]], None]
Marks = dict[str, int]
"""Cause → Redis's time of the newest gap, in milliseconds; 0: unknown."""
UNREADABLE: Final = {GapCause.DAMAGED_KEY.value: "0"}
"""The marks of a channel whose ``owed`` another program wrote."""

log = structlog.get_logger(__name__)


def is_coming(marks: Mapping[str, int], now: int) -> bool:
    """Tell whether a worker repairs all of this by itself, and is not late.

    ``now`` is in milliseconds since 1970, by Redis's clock.
    A mark of an unknown time may be as old as it likes: it is late.
    """
    earliest = now - 1000 * REPAIRED_WITHIN_SECONDS
    latest = now + 1000 * AHEAD_SECONDS
    times = marks.values()
    promises = (
        marks.keys() <= SELF_REPAIRED,
        min(times) >= earliest,
        max(times) <= latest,
    )
    return all(promises)


class PendingRepairs(Table):
    """Marks channels that need a repair, and takes marks back."""

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        retry: RedisRetry | None = None,
        replicas: int = 0,
    ) -> None:
        """So many ``replicas`` must have a mark before it counts as written."""
        super().__init__(redis, keys, retry, replicas)
        self._heads = Heads(redis, keys)
        self._listeners: list[Listener] = []

    def add_listener(self, listener: Listener) -> None:
        """Call this with channels that were marked, from now on."""
        self._listeners.append(listener)

    @retried
    async def mark(
        self,
        channels: Collection[str],
        cause: GapCause,
        *,
        is_new: bool = True,
    ) -> None:
        """Mark channels, before anything of the gap may be forgotten.

        A gap that continues is not ``is_new``, and not counted.
        """
        names = sorted(channels)
        if self._detector.is_cluster:
            # Its shard may acknowledge it, lose it, and be compared before the answer is read.
            self._acknowledged.note_marks(cause, names)
        calls = [([self._keys.owed(name)], [cause.value]) for name in names]
        answers = await call_script(self._redis, "owe", *calls, replicas=self._replicas)
        metrics.gaps.labels(cause.value).inc(is_new)
        self._acknowledged.note_marks(cause, names)
        for name in compress(names, answers):
            self._log_replaced(name)
        for listener in self._listeners:
            listener(names)

    async def read(self, channel: str) -> Marks:
        """Return the marks of one channel; empty if it needs no repair."""
        marks = await self.read_all([channel])
        return marks.get(channel, {})

    @retried
    async def read_all(self, channels: Collection[str]) -> dict[str, Marks]:
        """Return the marks of those channels that need a repair."""
        hashes = await self._read_hashes(channels, self._keys.owed, UNREADABLE)
        pending: dict[str, Marks] = {}
        for channel, fields in hashes.items():
            pending[channel] = {cause: _milliseconds(at) for cause, at in fields.items()}
        return pending

    @retried
    async def renew(self, channel: str, causes: Iterable[str]) -> None:
        """Let marks of a channel be marks of now."""
        key = self._keys.owed(channel)
        for cause in causes:
            await self._call("owe", key, cause)

    @retried
    async def clear(
        self,
        channel: str,
        marks: Mapping[str, int],
        check: Callable[[], None] = lambda: None,
    ) -> int:
        """Take back the marks that are unchanged; return how many are left.

        ``check`` is called before each try; its error ends them.
        """
        check()
        epoch = self._detector.epoch
        args = [part for mark in marks.items() for part in mark]
        left, was_damaged = await self._call("repay", self._keys.owed(channel), *args)
        if was_damaged:
            self._log_replaced(channel)
        if not left:
            await self._rely_on_repair(channel, epoch)
            self._acknowledged.note_taken_back(channel)
        return int(left)

    async def _rely_on_repair(self, channel: str, epoch: int) -> None:
        """Know the newest entry, which others may have written: that is why no mark is left.

        Raises:
            RedisReplacedError: a shard was compared meanwhile. Then the mark is there again.
        """
        if self._detector.is_cluster:
            heads = await self._heads.read([channel])
            self._detector.check_epoch(epoch)
            self._acknowledged.note_heads(heads)

    def _log_replaced(self, channel: str) -> None:
        key = self._keys.owed(channel)
        log.error("key_replaced", channel=channel, key=key)


def _milliseconds(text: str) -> int:
    return int(text) if text.isdecimal() else 0
