"""The channels ever seen: the set ``channels``."""

from collections.abc import Collection

from worker.store.table import Table, retried


class KnownChannels(Table):
    """Reads and adds channels."""

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
