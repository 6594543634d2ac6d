"""How much of each channel was pruned lately: the key ``pruned``."""

from typing import Final

from worker.store.damage import damaged_key, sentence
from worker.store.table import Table, retried

LATELY_SECONDS: Final = 86_400
NO_NUMBER: Final = "holds no number"


class PrunedLately(Table):
    """Counts what reconciles have pruned of a channel within a day."""

    @retried
    async def read(self, channel: str) -> int:
        """Return how many entries were pruned.

        Raises:
            DamagedKeyError: another program wrote the key.
        """
        key = self._keys.pruned(channel)
        count = await self._redis.get(key) or "0"
        if not count.isdecimal():
            raise damaged_key(channel, key, sentence(key, NO_NUMBER))
        return int(count)

    @retried
    async def add(self, channel: str, count: int) -> None:
        """Count entries, before they are pruned."""
        key = self._keys.pruned(channel)
        pipe = self._redis.pipeline(transaction=True)
        pipe.incrby(key, count)
        pipe.expire(key, LATELY_SECONDS)
        await pipe.execute()
