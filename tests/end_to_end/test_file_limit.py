"""The limit of open files that a refusal names is enough; ``tests/situations`` has the refusal."""

import asyncio
import re
import subprocess
import sys

import pytest

from tests.processes import environment
from tests.waiting import wait_until
from tests.worlds import World
from worker.errors import ExitCode

pytestmark = pytest.mark.processes
CHANNELS = {
    "TALLY_CHANNELS": ",".join(f"room{number}" for number in range(60)),
    "TALLY_CHANNELS_PER_SUBSCRIPTION": "1",
}


def start(world: World, limit: str, **settings: str) -> subprocess.Popen[str]:
    """Start a worker with a limit of open files, as ``ulimit`` sets it."""
    script = f'ulimit {limit}; exec "$0" -m worker run'
    return subprocess.Popen(
        ["/bin/sh", "-c", script, sys.executable],
        cwd=world.folder,
        env=environment({**world.settings, **settings}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


async def test_clients_of_the_api_are_counted(world: World) -> None:
    """Half a thousand of them may come, and none may take the worker's own files."""
    process = start(world, "-n 500", TALLY_API="on")
    text, _ = await asyncio.to_thread(process.communicate)

    assert process.returncode == ExitCode.USAGE
    assert "to follow 1 names the worker needs 563." in text
    assert "Clients of TALLY_API need 512 of them." in text


@pytest.mark.parametrize("limit", ["-n 243", "-Sn 80"], ids=["the need", "a soft limit"])
async def test_a_limit_that_the_refusal_names_is_enough(world: World, limit: str) -> None:
    """For every room to be counted. A limit that is only soft is raised by the worker."""
    process = start(world, limit, **CHANNELS)
    try:
        await wait_until(lambda: world.emulator.waiting >= 60)
        for number in range(60):
            world.react("👍", "ana", f"room{number}")
        await wait_until(world.is_exact)
    finally:
        process.terminate()
        text, _ = await asyncio.to_thread(process.communicate)

    assert process.returncode == ExitCode.DONE, text
    assert not re.search("Too many open files|Traceback", text)
