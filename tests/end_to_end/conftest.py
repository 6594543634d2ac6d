"""The worlds that whole processes are tested in."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.redis_server import MortalServer, RedisServer
from tests.worlds import World, open_world


@pytest.fixture
async def world(real_redis: Redis, valkey: RedisServer, tmp_path: Path) -> AsyncIterator[World]:
    """A world without faults, its Redis empty; no repair falls into a test."""
    async with open_world(valkey.url, tmp_path) as world:
        world.settings["TALLY_SETTLE_SECONDS"] = "600"
        yield world


@pytest.fixture
async def mortal(tmp_path: Path) -> AsyncIterator[tuple[World, MortalServer]]:
    """A world whose Redis can be killed and put back."""
    server = MortalServer(tmp_path / "redis")
    try:
        async with open_world(server.url, tmp_path) as world:
            yield world, server
    finally:
        server.destroy()


@pytest.fixture
def stage(world: World) -> World:
    """The world, by the name that ``test_interrupt.py`` has for it."""
    return world
