"""The worlds of these tests: a worker with its board, and a real browser."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.bench.in_process import Running
from tests.board.chromium import Browser, Chromium
from tests.board.serving import Serve
from tests.redis_server import RedisServer, free_port
from tests.worlds import World, open_world


@pytest.fixture
async def world(real_redis: Redis, valkey: RedisServer, tmp_path: Path) -> AsyncIterator[World]:
    """A world whose worker shows its board, always at the same address."""
    async with open_world(valkey.url, tmp_path) as world:
        world.settings |= {
            "TALLY_BOARD": "on",
            "TALLY_HTTP": f"127.0.0.1:{free_port()}",
            "TALLY_SETTLE_SECONDS": "600",
        }
        yield world


@pytest.fixture
async def serve(world: World) -> AsyncIterator[Serve]:
    """Runs a worker, with some settings, until the test ends."""
    async with AsyncExitStack() as stack:

        async def start(**settings: str | None) -> Running:
            return await stack.enter_async_context(world.run_worker(**settings))

        yield start


@pytest.fixture
def address(world: World) -> str:
    """The address of the board."""
    return f"http://{world.settings['TALLY_HTTP']}/board"


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    """The process of a real browser, without a window, for the whole run."""
    process = Chromium()
    yield process
    process.end()


@pytest.fixture
async def browser(chromium: Chromium) -> AsyncIterator[Browser]:
    """A browser of which no other test has used anything."""
    async with chromium.browser() as browser:
        yield browser
