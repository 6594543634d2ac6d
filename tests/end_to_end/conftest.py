"""The stage the whole service is tested on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.end_to_end.processes import KEY, Stage
from tests.redis_server import MortalServer, RedisServer
from worker.emulator import Emulator
from worker.store.connection import connect


@pytest.fixture
async def stage(real_redis: Redis, valkey: RedisServer, tmp_path: Path) -> AsyncIterator[Stage]:
    """Set a stage without faults, its Redis empty; whatever was started on it has ended afterwards.

    What is owed stays so, unless a test says otherwise.
    """
    async with Emulator(seed=1, subscribe_key=KEY) as emulator:
        stage = Stage(emulator, real_redis, valkey.url, tmp_path)
        stage.settings["TALLY_SETTLE_SECONDS"] = "600"
        try:
            yield stage
        finally:
            stage.end()


@pytest.fixture
async def mortal(tmp_path: Path) -> AsyncIterator[tuple[Stage, MortalServer]]:
    """Set a stage on a Redis of its own, which may be killed and put back."""
    server = MortalServer(tmp_path / "redis")
    try:
        async with connect(server.url) as redis, Emulator(seed=1, subscribe_key=KEY) as emulator:
            stage = Stage(emulator, redis, server.url, tmp_path)
            try:
                yield stage, server
            finally:
                stage.end()
    finally:
        server.destroy()
