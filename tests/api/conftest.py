"""The API on a Redis with tallies, without a worker around it."""

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from reaction_tally.keys import Keys
from tests.api.served import Served, served
from tests.claimed import claim
from worker.store.store import Store


@pytest.fixture
async def claimed(real_redis: Redis) -> AsyncIterator[Redis]:
    """An empty namespace that a worker has claimed."""
    await claim(real_redis)
    yield real_redis
    await cast("Any", real_redis).delete(Keys().meta)


@pytest.fixture
async def store(claimed: Redis) -> Store:
    """Return what writes. The channels are known, as a worker makes them known first."""
    channels = ["room", "other", "third", *(f"c{number}" for number in range(5))]
    await cast("Any", claimed).sadd(Keys().channels, *channels)
    return Store(claimed, Keys())


@pytest.fixture
async def api(claimed: Redis) -> AsyncIterator[Served]:
    """The API on loopback, without a token."""
    async with served(claimed) as server:
        yield server
