"""Which channels need a repair, and why: the hash ``owed`` of each channel."""

from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from worker.store import scripts
from worker.store.hashes import read_hashes
from worker.store.keys import Keys
from worker.store.redis_retry import RedisRetry, retried
from worker.telemetry import metrics


class GapCause(StrEnum):
    """Why a channel may lack events; a field of ``owed``."""

    FIRST_START = "first_start"
    """There was no cursor: nothing was followed before the first answer."""
    STALE_CURSOR = "stale_cursor"
    """PubNub's cache does not reach back to where reading stopped."""
    OVERFLOW = "overflow"
    """An answer was full, so PubNub may have dropped messages."""
    FORBIDDEN = "forbidden"
    """PubNub refused the channel for a while."""
    NEW_CHANNEL = "new_channel"
    """The channel was seen for the first time, through a group or a wildcard."""
    QUARANTINED = "quarantined"
    """Redis refused one of the channel's events."""
    REDIS_WENT_BACK = "redis_went_back"
    """Redis holds an older state than it held: a failover, a restored copy."""
    UNPROVEN = "unproven"
    """A reconcile could neither prove nor refute something, or was not allowed to act on it."""


Tables = dict[str, int]
"""Cause → milliseconds since 1970 of its newest gap, by the clock of Redis."""


class PendingRepairs:
    """Tables channels as owed, and takes marks back."""

    def __init__(self, redis: Redis, keys: Keys, retry: RedisRetry | None = None) -> None:
        self._redis = cast("Any", redis)
        self._keys = keys
        self._mark_script = scripts.source("owe")
        self._mark_sha = redis.register_script(self._mark_script).sha
        self._clear = redis.register_script(scripts.source("repay"))
        self.retry = retry

    @retried
    async def mark(
        self, channels: Collection[str], cause: GapCause, *, is_new: bool = True
    ) -> None:
        """Mark that these channels need a repair. Written before anything may be forgotten.

        A gap that only goes on is not ``is_new``: its mark is renewed, and it is not counted again.
        """
        keys = [self._keys.owed(channel) for channel in sorted(channels)]
        try:
            await self._send_marks(keys, cause)
        except NoScriptError:
            await self._redis.script_load(self._mark_script)
            await self._send_marks(keys, cause)
        metrics.gaps.labels(cause.value).inc(is_new)

    async def _send_marks(self, keys: Iterable[str], cause: GapCause) -> None:
        # A registered script would ask Redis first whether it knows the script.
        # A caller that is cancelled there leaves a connection behind that redis-py complains of.
        pipe = self._redis.pipeline(transaction=False)
        for key in keys:
            pipe.evalsha(self._mark_sha, 1, key, cause.value)
        await pipe.execute()

    async def read(self, channel: str) -> Tables:
        """Return the marks of one channel; empty if it needs no repair."""
        return (await self.read_all([channel])).get(channel, {})

    @retried
    async def read_all(self, channels: Collection[str]) -> dict[str, Tables]:
        """Return the marks of those channels that need a repair."""
        names = sorted(channels)
        hashes = await read_hashes(self._redis, map(self._keys.owed, names))
        return {
            name: {cause: int(marked_at) for cause, marked_at in fields.items()}
            for name, fields in zip(names, hashes, strict=True)
            if fields
        }

    @retried
    async def clear(self, channel: str, tables: Mapping[str, int]) -> int:
        """Take these marks back where they are unchanged; return how many marks are left."""
        args = [part for mark in tables.items() for part in mark]
        return int(await self._clear(keys=[self._keys.owed(channel)], args=args))
