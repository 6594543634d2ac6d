"""Which channels need a repair, and why: the hash ``owed`` of each channel."""

from collections.abc import Collection, Mapping
from enum import StrEnum

from redis.asyncio import Redis

from worker.store.hashes import read_hashes
from worker.store.keys import Keys
from worker.store.redis_retry import RedisRetry
from worker.store.scripts import Script
from worker.store.table import Table, retried
from worker.telemetry import metrics


class GapCause(StrEnum):
    """Why a channel may lack events: a field of ``owed``."""

    FIRST_START = "first_start"
    """There was no cursor: nothing was followed before the first answer."""
    STALE_CURSOR = "stale_cursor"
    """The cursor was older than PubNub's cache reaches back."""
    OVERFLOW = "overflow"
    """An answer was full, so PubNub may have dropped messages."""
    FORBIDDEN = "forbidden"
    """PubNub refused the channel for a while."""
    NEW_CHANNEL = "new_channel"
    """The channel was seen for the first time, in a group or under a wildcard."""
    QUARANTINED = "quarantined"
    """Redis refused one of the channel's events."""
    REDIS_WENT_BACK = "redis_went_back"
    """Redis holds an older state than before: a failover, a restored copy."""
    UNPROVEN = "unproven"
    """A reconcile could not prove something, or was not allowed to act on it."""


Marks = dict[str, int]
"""Cause → time of its newest gap: milliseconds since 1970, Redis's clock."""


class PendingRepairs(Table):
    """Marks channels that need a repair, and takes marks back."""

    def __init__(self, redis: Redis, keys: Keys, retry: RedisRetry | None = None) -> None:
        super().__init__(redis, keys, retry)
        self._owe = Script(redis, "owe")
        self._repay = Script(redis, "repay")

    @retried
    async def mark(
        self,
        channels: Collection[str],
        cause: GapCause,
        *,
        is_new: bool = True,
    ) -> None:
        """Mark channels. Only before anything of the gap may be forgotten.

        A gap that continues is not ``is_new``.
        Its mark is renewed, but the gap is not counted again.
        """
        names = sorted(channels)
        calls = [([self._keys.owed(name)], [cause.value]) for name in names]
        await self._owe.call_all(calls)
        metrics.gaps.labels(cause.value).inc(is_new)

    async def read(self, channel: str) -> Marks:
        """Return the marks of one channel; empty if it needs no repair."""
        marks = await self.read_all([channel])
        return marks.get(channel, {})

    @retried
    async def read_all(self, channels: Collection[str]) -> dict[str, Marks]:
        """Return the marks of those channels that need a repair."""
        names = sorted(channels)
        keys = map(self._keys.owed, names)
        hashes = await read_hashes(self._redis, keys)
        pairs = zip(names, hashes, strict=True)
        return {name: _marks(fields) for name, fields in pairs if fields}

    @retried
    async def clear(self, channel: str, marks: Mapping[str, int]) -> int:
        """Take back the marks that are unchanged; return how many are left."""
        args = [part for mark in marks.items() for part in mark]
        return int(await self._repay.call([self._keys.owed(channel)], args))


def _marks(fields: Mapping[str, str]) -> Marks:
    return {cause: int(marked_at) for cause, marked_at in fields.items()}
