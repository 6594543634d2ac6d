"""A worker refuses a Redis on which counts could not stay exact."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from worker.errors import RedisUnfitError
from worker.store.preflight import Fitness, check_fitness


@pytest.fixture
async def evicting(real_redis: Redis) -> AsyncIterator[Redis]:
    """Let the real Redis evict keys when memory is short."""
    await real_redis.config_set("maxmemory-policy", "allkeys-lru")
    yield real_redis
    await real_redis.config_set("maxmemory-policy", "noeviction")


async def test_a_redis_that_evicts_is_refused(evicting: Redis) -> None:
    """``--allow-eviction`` accepts it."""
    with pytest.raises(RedisUnfitError, match=r"allkeys-lru.*--allow-eviction"):
        await check_fitness(evicting)
    accepted = await check_fitness(evicting, allow_eviction=True)
    assert accepted.policy == "allkeys-lru"


@pytest.mark.parametrize(
    ("version", "recent"), [("5.0.14", False), ("6.0.16", False), ("6.2.0", True), ("7.2.4", True)]
)
def test_redis_6_2_is_the_floor(version: str, recent: bool) -> None:
    """Older versions lack commands that the scripts need."""
    assert Fitness(version, "noeviction").is_recent is recent
