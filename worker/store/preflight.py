"""Is this Redis fit for tallies?"""

import re
from dataclasses import dataclass
from typing import Final

from redis.asyncio import Redis

from worker.errors import RedisUnfitError
from worker.store.redis_errors import redis_errors

FLOOR: Final = (6, 2)
"""The oldest version of Redis that has what the scripts need."""


@dataclass(frozen=True, slots=True)
class Fitness:
    """What INFO says of a Redis."""

    version: str
    policy: str

    @property
    def is_recent(self) -> bool:
        """Whether the version has what the scripts need."""
        numbers = re.findall(r"\d+", self.version)
        return tuple(map(int, numbers[:2])) >= FLOOR


async def check_fitness(redis: Redis, *, allow_eviction: bool = False) -> Fitness:
    """Refuse a Redis on which counts could not stay exact.

    Raises:
        RedisUnfitError: Redis is too old, or may evict tallies.
    """
    # Managed services block CONFIG, so INFO is asked.
    # INFO is asked for all sections: that works in every version and proxy.
    with redis_errors():
        info = await redis.info()
    fitness = Fitness(
        str(info.get("redis_version", "0")),
        str(info.get("maxmemory_policy", "noeviction")),
    )
    if not fitness.is_recent:
        raise RedisUnfitError(
            f"Redis is version {fitness.version}; 6.2 or newer (or any Valkey) is needed."
        )
    if fitness.policy != "noeviction" and not allow_eviction:
        raise RedisUnfitError(
            f"Redis has maxmemory-policy {fitness.policy}: "
            "it would delete counts when memory is short. "
            "Set it to noeviction, or accept lost counts with --allow-eviction."
        )
    return fitness
