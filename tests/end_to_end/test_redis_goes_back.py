"""Redis goes back in time under a running worker, which notices, repairs itself, and ends with the truth."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.end_to_end.processes import KEY, MESSAGE, ROOM, Child, Crowd, Stage, wait_until
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


async def follows_a_crowd(stage: Stage, crowd: Crowd) -> Child:
    """Start a worker that repairs itself within seconds, let the crowd act, and return when nothing is left to do.

    Most of what is counted is old, so that what a worker has to prune is not too much at once.
    """
    for number in range(300):
        stage.state.add(ROOM, MESSAGE, "reaction", "👍", f"old-{number}", published=False)
    worker = await stage.follow(TALLY_SETTLE_SECONDS="1")
    async with crowd.acting(stage.emulator, per_second=150):
        await crowd.has_acted(60)
    await is_repaired(stage, worker)
    return worker


async def is_repaired(stage: Stage, worker: Child) -> None:
    """Return when the tallies are PubNub's truth, and nothing is owed or under way."""

    async def is_done() -> bool:
        left = await stage.redis.keys("tally:*:owed") or await stage.redis.keys("tally:*:progress")
        return not left and await stage.is_true()

    await wait_until(is_done, 40, what=lambda: worker.err[-5000:])


async def loses(stage: Stage, crowd: Crowd, acts: int) -> None:
    """Let the crowd do what Redis is about to forget, and the worker count it all, removals too."""
    async with crowd.acting(stage.emulator, per_second=150):
        await crowd.has_acted(acts)
    await stage.settles()


async def goes_back(stage: Stage, server: MortalServer, copy: Path) -> None:
    """Put a copy back while Redis is down for a moment."""
    await server.kill()
    await server.revive(copy)
    await stage.redis.connection_pool.disconnect()  # those to the server that was


def causes(worker: Child) -> set[str]:
    """Return why the worker thought that events may have been missed."""
    return {entry["cause"] for entry in worker.entries("gap")}


@pytest.mark.parametrize("acts", [CACHED, OVERFLOWING])
async def test_a_failover_to_a_lagging_replica_is_repaired(pair: tuple[Stage, Pair], acts: int) -> None:
    """The replica lacks the last acts, in PubNub's cache or not: the worker notices, goes on there, and is exact."""
    stage, (_, replica, door) = pair
    crowd = Crowd(stage.state, seed=51)
    worker = await follows_a_crowd(stage, crowd)
    primary = stage.redis
    async with connect(replica.url) as redis:
        stage.redis = redis
        await wait_until(stage.is_true)
        await redis.replicaof("NO", "ONE")
        stage.redis = primary
        await loses(stage, crowd, acts)
        stage.redis = redis
        assert not await stage.is_true()

        await door.switch(replica.port)

        await wait_until(lambda: "redis_went_back" in causes(worker), what=lambda: worker.err[-3000:])
        async with crowd.acting(stage.emulator):
            await crowd.has_acted(20)
        await is_repaired(stage, worker)
        assert worker.is_alive
        assert await worker.stopped() == 0


@pytest.mark.parametrize("acts", [CACHED, OVERFLOWING])
async def test_a_restored_copy_is_repaired(mortal: tuple[Stage, MortalServer], acts: int, tmp_path: Path) -> None:
    """A copy of before the last acts is put back under the worker, which notices, goes on, and is exact."""
    stage, server = mortal
    crowd = Crowd(stage.state, seed=52)
    worker = await follows_a_crowd(stage, crowd)
    copy = server.copy(tmp_path / "copy")
    await loses(stage, crowd, acts)

    await goes_back(stage, server, copy)

    await wait_until(lambda: "redis_went_back" in causes(worker), what=lambda: worker.err[-3000:])
    await is_repaired(stage, worker)
    assert worker.is_alive
    if acts == OVERFLOWING:  # else its cursor is read again at once, and PubNub's cache has all that was lost
        await wait_until(
            lambda: any(entry["pruned"] for entry in worker.entries("reconcile_ends")), what=lambda: worker.err
        )
    assert "stale_cursor" not in causes(worker)


async def test_an_old_copy_is_repaired(mortal: tuple[Stage, MortalServer], tmp_path: Path) -> None:
    """A copy of an hour ago: its cursor is older than PubNub's cache, which is owed too; the worker is exact."""
    stage, server = mortal
    crowd = Crowd(stage.state, seed=53)
    worker = await follows_a_crowd(stage, crowd)
    (cursor,) = await stage.cursors()
    await stage.redis.hincrby(cursor, "saved_at", -HOUR)
    copy = server.copy(tmp_path / "copy")
    await loses(stage, crowd, OVERFLOWING)

    await goes_back(stage, server, copy)

    await wait_until(lambda: "redis_went_back" in causes(worker), what=lambda: worker.err[-3000:])
    stage.react(uuid="afterwards")
    await wait_until(lambda: "stale_cursor" in causes(worker), what=lambda: worker.err[-3000:])
    await is_repaired(stage, worker)
    assert worker.is_alive


async def test_a_copy_restored_between_two_workers_is_repaired(
    mortal: tuple[Stage, MortalServer], tmp_path: Path
) -> None:
    """No worker runs while the copy is put back: the next one goes on from the copy's cursor, and is exact."""
    stage, server = mortal
    crowd = Crowd(stage.state, seed=54)
    worker = await follows_a_crowd(stage, crowd)
    copy = server.copy(tmp_path / "copy")
    await loses(stage, crowd, OVERFLOWING)
    await worker.killed()
    await goes_back(stage, server, copy)

    worker = await stage.follow(TALLY_SETTLE_SECONDS="1")

    await wait_until(lambda: "overflow" in causes(worker), what=lambda: worker.err[-3000:])
    await is_repaired(stage, worker)


async def test_a_restart_that_forgets_nothing_is_exact(mortal: tuple[Stage, MortalServer]) -> None:
    """Redis ends and comes back with all it had, under load: the worker cannot know that, looks again, and is exact."""
    stage, server = mortal
    crowd = Crowd(stage.state, seed=55)
    worker = await follows_a_crowd(stage, crowd)
    async with crowd.acting(stage.emulator):
        await server.end()
        await wait_until(lambda: bool(worker.entries("redis_unavailable")), what=lambda: worker.err)
        await server.revive()
        await stage.redis.connection_pool.disconnect()
        await crowd.has_acted(20)

    await wait_until(lambda: "redis_went_back" in causes(worker), what=lambda: worker.err[-3000:])
    await is_repaired(stage, worker)
    assert worker.is_alive
