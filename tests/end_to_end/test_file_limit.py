"""A limit of open files that is too low is refused at the start, and not met at night."""

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


def start(world: World, limit: str, command: str, **settings: str) -> subprocess.Popen[str]:
    """Start a command with a limit of open files, as ``ulimit`` sets it."""
    script = f'ulimit {limit}; exec "$0" -m worker {command}'
    return subprocess.Popen(
        ["/bin/sh", "-c", script, sys.executable],
        cwd=world.folder,
        env=environment({**world.settings, **settings}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("command", ["run", "doctor"])
async def test_a_limit_that_is_too_low_is_refused(world: World, command: str) -> None:
    """With the limit, what is needed, and what to type. Fewer subscriptions need less."""
    process = start(world, "-n 80", command, **CHANNELS)
    text, _ = await asyncio.to_thread(process.communicate)

    assert process.returncode == ExitCode.USAGE
    assert "The limit of open files is 80; to follow 60 names the worker needs 183." in text
    assert "ulimit -n 183 in a shell, LimitNOFILE=183 in systemd" in text
    assert "Traceback" not in text
    assert not await world.redis.keys("tally:*")


@pytest.mark.parametrize("limit", ["-n 183", "-Sn 80"], ids=["the need", "a soft limit"])
async def test_a_limit_that_the_refusal_names_is_enough(world: World, limit: str) -> None:
    """For every room to be counted. A limit that is only soft is raised by the worker."""
    process = start(world, limit, "run", **CHANNELS)
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
