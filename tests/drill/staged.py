"""The scene of every drill."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.end_to_end.processes import KEY, Stage
from tests.redis_server import RedisServer
from worker.emulator import Emulator
from worker.store.connection import connect


@asynccontextmanager
async def staged(server: RedisServer, folder: Path, seed: int) -> AsyncIterator[Stage]:
    """Yield an emulator and a folder for commands on this server; whatever was started on it has ended afterwards."""
    async with connect(server.url) as redis, Emulator(seed=seed, subscribe_key=KEY) as emulator:
        stage = Stage(emulator, redis, server.url, folder)
        try:
            yield stage
        finally:
            stage.end()
