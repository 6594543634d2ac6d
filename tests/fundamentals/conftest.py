"""The world of these tests: a PubNub (the emulator), an empty Redis, and no worker yet."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.redis_server import RedisServer
from tests.worlds import World, open_world


@pytest.fixture
async def world(real_redis: Redis, valkey: RedisServer, tmp_path: Path) -> AsyncIterator[World]:
    """A world with one channel, ``room``; ``world.run_worker()`` runs a worker there."""
    async with open_world(valkey.url, tmp_path) as world:
        yield world
