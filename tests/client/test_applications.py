"""Small real applications under load: a reader at the top of a module, and 400 requests at once."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, cast

import aiohttp
import pytest
from redis.asyncio import Redis

from reaction_tally.keys import Keys
from tests.histories import CHANNEL, MESSAGE, added
from tests.processes import environment
from tests.redis_server import RedisServer
from tests.store.examples import apply
from tests.waiting import WAIT_SECONDS, wait_until
from worker.store.store import Store

pytestmark = pytest.mark.processes

APPLICATIONS: Final = Path(__file__).with_name("applications")
AT_ONCE: Final = 400


@pytest.fixture
async def counted(claimed: Redis) -> Redis:
    """A namespace with one reaction."""
    await apply(Store(claimed, Keys()), [added(1)])
    return claimed


@asynccontextmanager
async def started(name: str, url: str, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run an application until the block ends."""
    program = str(APPLICATIONS / f"{name}.py")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, program, *words),
        env=environment({"REDIS_URL": url}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def first_line(process: asyncio.subprocess.Process) -> str:
    """Return the first line that an application prints."""
    assert process.stdout
    async with asyncio.timeout(WAIT_SECONDS):
        return (await process.stdout.readline()).decode().strip()


@pytest.mark.parametrize("name", ["threads", "streams"])
async def test_a_web_application_answers_any_number_of_requests_at_once(
    counted: Redis, valkey: RedisServer, name: str
) -> None:
    """Each with the whole page, and none with an error."""
    async with started(name, valkey.url) as process:
        port = await first_line(process)
        page = f"http://127.0.0.1:{port}/{CHANNEL}?me=ana&message={MESSAGE}&message=5"
        limit = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=limit) as http:

            async def ask() -> Any:
                async with http.get(page) as response:
                    return response.status, await response.json(content_type=None)

            answers = await asyncio.gather(*[ask() for _ in range(AT_ONCE)])

    (status, document), *others = answers
    assert status == 200, document
    (reaction,) = document["messages"][MESSAGE]["reactions"]
    assert (reaction["count"], reaction["mine"], reaction["names"]) == (1, True, ["ana"])
    assert others == [(200, document)] * (AT_ONCE - 1)


async def test_tasks_with_event_loops_of_their_own_share_a_reader(
    counted: Redis, valkey: RedisServer
) -> None:
    """Every task reads, and leaves no connection behind: the process still runs."""
    before = len(await cast("Any", counted).client_list())

    async def are_closed() -> bool:
        return len(await cast("Any", counted).client_list()) <= before

    async with started("tasks", valkey.url, CHANNEL, MESSAGE, str(AT_ONCE)) as process:
        assert json.loads(await first_line(process)) == {"1": AT_ONCE}
        await wait_until(are_closed)
        assert process.returncode is None
