"""Reads many small hashes, few of which exist."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from worker.store.batched import batched

HASH_BATCH: Final = 500
"""Hashes of one round trip.

Other commands run between two round trips, above all an apply.
"""


async def read_hashes(redis: Any, keys: Iterable[str]) -> list[dict[str, str]]:
    """Return these hashes, in order; one that does not exist is empty."""
    hashes: list[dict[str, str]] = []
    for batch in batched(list(keys), HASH_BATCH):
        hashes += await _read_batch(redis, batch)
    return hashes


async def _read_batch(redis: Any, keys: Sequence[str]) -> list[dict[str, str]]:
    if not await redis.exists(*keys):
        return [{} for _ in keys]
    pipe = redis.pipeline(transaction=False)
    for key in keys:
        pipe.hgetall(key)
    return list(await pipe.execute())
