"""Real applications under load: a reader at the top of a module, and 400 requests at once."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import aiohttp
import pytest
from redis.asyncio import Redis

from reaction_tally.keys import Keys
from tests.client.node import MODULES, NODE, needs_node
from tests.histories import CHANNEL, MESSAGE, added
from tests.processes import environment
from tests.redis_server import STOP_SECONDS, RedisServer, free_port
from tests.store.examples import apply
from tests.waiting import WAIT_SECONDS, wait_until
from worker.store.store import Store

pytestmark = pytest.mark.processes

APPLICATIONS: Final = Path(__file__).with_name("applications")
PROGRAMS: Final = Path(sys.executable).parent
AT_ONCE: Final = 400
QUERY: Final = f"{CHANNEL}?me=ana&message={MESSAGE}&message=5"

UVICORN: Final = "uvicorn --log-level warning --port {port}"
# The control socket would be one file in the home of the user, for all tests that run at once.
GUNICORN: Final = (
    "gunicorn --no-control-socket --bind 127.0.0.1:{port} --preload --workers 2 --threads 16"
)


@dataclass(frozen=True)
class Site:
    """What starts a site in its folder, and where its page is."""

    folder: str
    command: str
    path: str = ""


LOOPS: Final = Site("django_chat", f"{GUNICORN} wsgi", "loops/")
SITES: Final = {
    "fastapi": Site("fastapi_chat", f"{UVICORN} main:app"),
    "django-wsgi": Site("django_chat", f"{GUNICORN} wsgi", "threads/"),
    "django-asgi-threads": Site("django_chat", f"{UVICORN} asgi:application", "threads/"),
    "django-asgi-loops": Site("django_chat", f"{UVICORN} asgi:application", "loops/"),
    "django-asgi-tasks": Site("django_chat", f"{UVICORN} asgi:application", "tasks/"),
}
IN_NODE: Final = Site("node_chat", f"{NODE} main.cjs {{port}}")


@pytest.fixture
async def counted(claimed: Redis) -> Redis:
    """A namespace with one reaction."""
    await apply(Store(claimed, Keys()), [added(1)])
    return claimed


@pytest.fixture
def broker() -> Iterator[RedisServer]:
    """A Valkey for the queue of tasks."""
    with RedisServer() as server:
        yield server


class Application:
    """An application that runs, and what it writes."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self._log = log

    def log(self) -> str:
        """Return all that it wrote."""
        return self._log.read_text(encoding="utf-8", errors="replace")


@asynccontextmanager
async def started(
    folder: str, command: str, log: Path, **settings: str
) -> AsyncIterator[Application]:
    """Run a program in its folder until the block ends."""
    program, *words = command.split()
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            PROGRAMS / program,
            *words,
            cwd=APPLICATIONS / folder,
            env=environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield Application(process, log)
    finally:
        await end(process)


async def end(process: asyncio.subprocess.Process) -> None:
    """End a program, and the processes that it started: they are in its group."""
    with suppress(ProcessLookupError, TimeoutError):
        process.terminate()
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


@asynccontextmanager
async def served(site: Site, valkey: RedisServer, folder: Path) -> AsyncIterator[str]:
    """Run a site; yield the address of its page when it listens. It must report no error."""
    port = free_port()
    log = folder / "site.log"
    async with started(
        site.folder,
        site.command.format(port=port),
        log,
        REDIS_URL=valkey.url,
        NODE_PATH=str(MODULES),
    ) as application:

        async def listens() -> bool:
            assert application.process.returncode is None, application.log()
            try:
                _, line = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return False
            line.close()
            return True

        await wait_until(listens, what=application.log)
        yield f"http://127.0.0.1:{port}/{site.path}{QUERY}"
        assert "Traceback" not in application.log()


async def answers(page: str) -> list[tuple[int, str]]:
    """Return status and text of many requests at once."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:

        async def ask() -> tuple[int, str]:
            async with http.get(page) as response:
                return response.status, await response.text()

        return await asyncio.gather(*[ask() for _ in range(AT_ONCE)])


def expect_whole_pages(found: list[tuple[int, str]]) -> None:
    """Expect the whole page in each answer."""
    (status, text), *others = found
    assert status == 200, text
    document = json.loads(text)
    (reaction,) = document["messages"][MESSAGE]["reactions"]
    assert (reaction["count"], reaction["mine"], reaction["names"]) == (1, True, ["ana"])
    assert document["messages"]["5"]["reactions"] == []
    assert others == [(200, text)] * (AT_ONCE - 1)


@pytest.mark.parametrize("site", SITES.values(), ids=SITES)
async def test_a_site_answers_any_number_of_requests_at_once(
    counted: Redis, valkey: RedisServer, tmp_path: Path, site: Site
) -> None:
    """Each with the whole page, and none with an error."""
    async with served(site, valkey, tmp_path) as page:
        expect_whole_pages(await answers(page))


@needs_node
async def test_a_site_in_node_answers_any_number_of_requests_at_once(
    counted: Redis, valkey: RedisServer, tmp_path: Path
) -> None:
    """It reads the keys by itself."""
    async with served(IN_NODE, valkey, tmp_path) as page:
        found = await answers(page)

    assert [(status, json.loads(text)) for status, text in found] == [
        (200, [{"reaction:👍": "1"}, {}])
    ] * AT_ONCE


async def test_an_event_loop_for_each_request_leaves_no_connection(
    counted: Redis, valkey: RedisServer, tmp_path: Path
) -> None:
    """As ``async_to_sync`` makes one in a thread. The site still runs."""
    redis = cast("Any", counted)
    before = len(await redis.client_list())

    async def are_closed() -> bool:
        return len(await redis.client_list()) <= before

    async with served(LOOPS, valkey, tmp_path) as page:
        expect_whole_pages(await answers(page))
        await wait_until(are_closed)


@pytest.mark.parametrize("pool", ["prefork", "threads"])
async def test_tasks_of_celery_share_the_readers_of_their_module(
    counted: Redis, valkey: RedisServer, broker: RedisServer, tmp_path: Path, pool: str
) -> None:
    """Many at once, in processes forked after a read, or in threads with loops of their own.

    Their module is a ``worker.py``: it and the service's package ``worker`` do not meet.
    """
    urls = {"REDIS_URL": valkey.url, "BROKER_URL": broker.url}
    work = f"celery -A worker worker --pool {pool} --concurrency 4"
    report = f"python report.py {CHANNEL} {MESSAGE} {AT_ONCE}"
    async with (
        started("celery_chat", work, tmp_path / "work.log", **urls) as tasks,
        started("celery_chat", report, tmp_path / "report.log", **urls) as results,
    ):
        async with asyncio.timeout(WAIT_SECONDS):
            assert await results.process.wait() == 0, results.log() + tasks.log()

        assert json.loads(results.log()) == {"1": AT_ONCE}
        assert tasks.process.returncode is None
        assert "Traceback" not in tasks.log()
