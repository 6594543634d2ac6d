"""The channels ever seen: the set ``channels``."""

from collections.abc import Collection
from typing import Any, cast

from redis.asyncio import Redis

from worker.store.keys import Keys
from worker.store.redis_retry import RedisRetry, retried


class KnownChannels:
    """Reads and adds channels."""

    def __init__(self, redis: Redis, keys: Keys, retry: RedisRetry | None = None) -> None:
        self._redis = cast("Any", redis)
        self._keys = keys
        self.retry = retry

    @retried
    async def all(self) -> frozenset[str]:
        """Return the channels ever seen."""
        return frozenset(await self._redis.smembers(self._keys.channels))

    @retried
    async def unknown(self, channels: Collection[str]) -> frozenset[str]:
        """Return those of the channels that were never seen."""
        names = sorted(channels)
        if not names:
            return frozenset()
        flags = await self._redis.smismember(self._keys.channels, names)
        pairs = zip(names, flags, strict=True)
        return frozenset(name for name, is_known in pairs if not is_known)

    @retried
    async def add(self, channels: Collection[str]) -> None:
        """Add channels. Only after the repair of a new one is marked."""
        names = sorted(channels)
        if names:
            await self._redis.sadd(self._keys.channels, *names)
