"""Reads many small hashes, few of which exist."""

from collections.abc import Iterable
from typing import Any, Final

from worker.store.batched import batched

HASH_BATCH: Final = 500
"""Hashes of one round trip. Other commands, an apply above all, pass between two of them."""


async def read_hashes(redis: Any, keys: Iterable[str]) -> list[dict[str, str]]:
    """Return these hashes, in order; one that does not exist is empty."""
    hashes: list[dict[str, str]] = []
    for batch in batched(list(keys), HASH_BATCH):
        hashes += await _read_batch(redis, batch)
    return hashes


async def _read_batch(redis: Any, keys: Iterable[str]) -> list[dict[str, str]]:
    names = list(keys)
    if not await redis.exists(*names):
        return [{} for _ in names]
    pipe = redis.pipeline(transaction=False)
    for name in names:
        pipe.hgetall(name)
    return list(await pipe.execute())
