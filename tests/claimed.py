"""A namespace that a worker has claimed."""

from typing import Any, cast

from redis.asyncio import Redis

from reaction_tally.keys import SCHEMA, Keys


async def claim(redis: Redis, namespace: str = "tally") -> None:
    """Write what a worker writes when it starts, as far as readers look at it."""
    await cast("Any", redis).hset(Keys(namespace).meta, "schema", SCHEMA)
