"""The client of the last release and today's read the same, whoever wrote it."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from tests.keyspaces.history import LARGE, LONG, STRANGE
from tests.processes import environment
from tests.releases import TODAY, Environment
from tests.waiting import wait_until
from tests.worlds import KEYS, MESSAGE, ROOM, World
from worker.errors import ExitCode

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]
READ_ALL: Final = Path(__file__).with_name("read_all.py")
CHANNELS: Final = (ROOM, LARGE, STRANGE)
Positions = Mapping[str, str]


class Clients:
    """Clients of both releases, which must read the same."""

    def __init__(self, world: World, old: Environment) -> None:
        self._world = world
        self._releases = (old, TODAY)

    async def positions(self) -> Positions:
        """Return where the journals of the channels end."""
        heads = await self._world.redis.mget([KEYS.head(channel) for channel in CHANNELS])
        return dict(zip(CHANNELS, heads, strict=True))

    async def read(self, since: Positions) -> Any:
        """Return what both read: everything, and the changes since then."""
        truth = self._world.emulator.truth()
        asked = {
            "url": self._world.settings["REDIS_URL"],
            "messages": {channel: list(truth[channel]) for channel in CHANNELS},
            "since": since,
            "until": await self.positions(),
        }
        first, second = await asyncio.gather(*(self._ask(it, asked) for it in self._releases))
        assert first == second
        return first

    async def _ask(self, release: Environment, asked: Mapping[str, Any]) -> Any:
        line = json.dumps(asked)
        said = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, str(READ_ALL)],
            env=environment(release),
            input=line,
            capture_output=True,
            text=True,
            check=False,
        )
        assert said.returncode == 0, said.stderr
        return json.loads(said.stdout)


async def test_both_clients_read_what_both_workers_write(restored: World, old: Environment) -> None:
    """The old worker's tallies, then today's, then the old one's; and each other's changes."""
    clients = Clients(restored, old)
    begin = await clients.positions()
    await clients.read(begin)

    await works(restored, "new", TODAY)
    await has_read(clients, restored, begin, "new")

    middle = await clients.positions()
    await works(restored, "old", old)
    await has_read(clients, restored, middle, "old")
    await has_read(clients, restored, begin, "new")


async def works(world: World, name: str, release: Environment) -> None:
    """Let a worker of a release go on, and count changes; nothing new may be owed."""
    worker = await world.follow(polls=3, **release)
    for channel in CHANNELS:
        world.react(name, "ana", channel)
        world.react(name, "ben", channel)
    gone = world.react("gone", "ana")
    await world.settles()
    world.take_back(gone)
    world.state.add(STRANGE, MESSAGE, "re:act%ion", f"{name}:{{%}}\n", "u:1")
    await world.settles()
    await wait_until(world.owes_nothing, what=worker.tail)
    assert not worker.entries("gap"), worker.err
    assert await worker.stopped() == ExitCode.DONE, worker.tail()


async def has_read(clients: Clients, world: World, since: Positions, name: str) -> None:
    """Expect PubNub's truth of both clients, and the changes since a position of either."""
    read = await clients.read(since)
    truth = world.emulator.truth()
    for channel, page in read["pages"].items():
        assert page["counts"] == truth[channel]
    counts = read["changes"]["counts"]
    assert not read["changes"]["resets"]
    assert counts[json.dumps([LARGE, MESSAGE, "reaction", name])] == 2
    assert counts[json.dumps([STRANGE, MESSAGE, "re:act%ion", f"{name}:{{%}}\n"])] == 1
    assert counts[json.dumps([ROOM, MESSAGE, "reaction", "gone"])] == 0
    assert LONG in read["channels"]
