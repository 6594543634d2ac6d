"""Redis goes back in time under a running worker, which notices, repairs itself, and ends with the truth.

A failover here; what an operator does with copies is tried in ``tests/commands``.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytest

from tests.end_to_end.processes import KEY, MESSAGE, ROOM, Crowd, Stage, wait_until
from tests.redis_server import Forwarder, MortalServer, RedisServer
from worker.emulator import Emulator
from worker.store.connection import connect

HOUR = 3600
CACHED = 20
"""Acts that PubNub's cache still holds when the worker asks again."""
OVERFLOWING = 150
"""And acts that it does not."""


class Pair(NamedTuple):
    """A primary and its replica, and the door that leads to one of them."""

    primary: RedisServer
    replica: RedisServer
    door: Forwarder


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Stage, Pair]]:
    """Set a stage on a door that leads to the primary of two."""
    async with AsyncExitStack() as stack:
        primary = RedisServer(None, **{"repl-diskless-sync-delay": "0"})
        stack.callback(primary.stop)
        replica = RedisServer(replicaof=f"127.0.0.1 {primary.port}")
        stack.callback(replica.stop)
        door = await stack.enter_async_context(Forwarder(primary.port))
        redis = await stack.enter_async_context(connect(primary.url))
        emulator = await stack.enter_async_context(Emulator(seed=1, subscribe_key=KEY))
        stage = Stage(emulator, redis, door.url, tmp_path)
        stack.callback(stage.end)
        yield stage, Pair(primary, replica, door)


class Worker(Protocol):
    """A worker, in whichever process."""

    @property
    def err(self) -> str:
        """What it has written to standard error until now."""

    def entries(self, event: str) -> list[dict[str, Any]]:
        """Return its log entries of that name."""


def repairs_soon(stage: Stage) -> None:
    """Have a worker repair itself in a second or two; most of what is counted is old: not too much to prune at once."""
    stage.settings["TALLY_SETTLE_SECONDS"] = "0.5"
    for number in range(300):
        stage.state.add(ROOM, MESSAGE, "reaction", "👍", f"old-{number}", published=False)


async def is_repaired(stage: Stage, worker: Worker) -> None:
    """Return when the tallies are PubNub's truth, and nothing is owed or under way."""

    async def is_done() -> bool:
        left = await stage.redis.keys("tally:*:owed") or await stage.redis.keys("tally:*:progress")
        return not left and await stage.is_true()

    await wait_until(is_done, what=lambda: worker.err[-5000:])


async def loses(stage: Stage, crowd: Crowd, acts: int) -> None:
    """Let the crowd do what Redis is about to forget, and the worker count it all, removals too."""
    async with crowd.acting(stage.emulator, per_second=500):
        await crowd.has_acted(acts)
    await stage.settles()


async def goes_back(stage: Stage, server: MortalServer, copy: Path) -> None:
    """Put a copy back while Redis is down for a moment."""
    await server.kill()
    await server.revive(copy)
    await stage.redis.connection_pool.disconnect()  # those to the server that was


def causes(worker: Worker) -> set[str]:
    """Return why the worker thought that events may have been missed."""
    return {entry["cause"] for entry in worker.entries("gap")}


async def notices(worker: Worker, cause: str) -> None:
    """Wait until the worker thinks that events may have been missed, for that reason."""
    await wait_until(lambda: cause in causes(worker), what=lambda: worker.err[-3000:])


async def test_a_failover_to_a_lagging_replica_is_repaired(pair: tuple[Stage, Pair]) -> None:
    """The replica lacks more acts than PubNub's cache holds: the worker notices, goes on there, and is exact."""
    stage, (_, replica, door) = pair
    crowd = Crowd(stage.state, seed=51)
    repairs_soon(stage)
    worker = await stage.follow()
    await loses(stage, crowd, 60)
    await is_repaired(stage, worker)
    primary = stage.redis
    async with connect(replica.url) as redis:
        stage.redis = redis
        await wait_until(stage.is_true)
        await redis.replicaof("NO", "ONE")
        stage.redis = primary
        await loses(stage, crowd, OVERFLOWING)
        stage.redis = redis
        assert not await stage.is_true()

        await door.switch(replica.port)

        await notices(worker, "redis_went_back")
        async with crowd.acting(stage.emulator):
            await crowd.has_acted(20)
        await is_repaired(stage, worker)
        assert worker.is_alive
        assert await worker.stopped() == 0
