"""How much of each channel was pruned lately: the key ``pruned``."""

from typing import Final

from worker.store.table import Table, retried

LATELY_SECONDS: Final = 86_400


class PrunedLately(Table):
    """Counts what reconciles have pruned of a channel within a day."""

    @retried
    async def read(self, channel: str) -> int:
        """Return how many entries were pruned."""
        return int(await self._redis.get(self._keys.pruned(channel)) or 0)

    @retried
    async def add(self, channel: str, count: int) -> None:
        """Count entries, before they are pruned."""
        key = self._keys.pruned(channel)
        pipe = self._redis.pipeline(transaction=True)
        pipe.incrby(key, count)
        pipe.expire(key, LATELY_SECONDS)
        await pipe.execute()
