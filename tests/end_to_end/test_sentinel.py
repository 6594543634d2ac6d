"""A failover by real Sentinels under a running worker: it goes on, and ends exact."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.comparison import compare
from tests.crowds import Crowd
from tests.processes import Child
from tests.rollbacks import OVERFLOWING, is_repaired, loses, repairs_soon
from tests.sentinels import Sentinels
from tests.waiting import wait_until
from tests.worlds import ROOM, World, open_world
from worker.errors import ExitCode

DOWN_MILLISECONDS = 3000
"""So a replica may lag for thirty seconds, and can still become the primary."""


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[tuple[World, Sentinels]]:
    """A world whose Redis is what Sentinels name."""
    with Sentinels(down_milliseconds=DOWN_MILLISECONDS) as sentinels:
        async with open_world(sentinels.url, tmp_path) as world:
            repairs_soon(world)
            yield world, sentinels


async def test_a_lagging_replica_becomes_the_primary(watched: tuple[World, Sentinels]) -> None:
    """It lacks more than PubNub's cache holds. The worker notices, and repairs it."""
    world, sentinels = watched
    crowd = Crowd(world.state, seed=61)
    worker = await world.follow()
    await loses(world, crowd, 60)
    await is_repaired(world, worker)
    await asyncio.to_thread(sentinels.wait_until_healthy)
    for replica in sentinels.replicas():
        await asyncio.to_thread(replica.stop_following)
    await loses(world, crowd, OVERFLOWING)
    dead = sentinels.kill_primary()
    await asyncio.to_thread(sentinels.wait_for_failover, dead)

    await wait_until(lambda: worker.entries("redis_went_back"), what=worker.tail)
    await expect_exact(world, worker)


async def test_a_planned_failover_under_load(watched: tuple[World, Sentinels]) -> None:
    """The worker follows the primary. What the old one took last may be lost, and is repaired."""
    world, sentinels = watched
    crowd = Crowd(world.state, seed=62)
    worker = await world.follow()
    async with crowd.acting(world.emulator, per_second=100):
        await crowd.has_acted(60)
        await asyncio.to_thread(sentinels.wait_until_healthy)
        before = sentinels.primary()
        after = await asyncio.to_thread(sentinels.fail_over)
        await crowd.has_acted(60)
    assert after is not before

    await expect_exact(world, worker)
    assert worker.is_alive


async def expect_exact(world: World, worker: Child) -> None:
    """Wait for the worker's own repairs; expect no difference, also by ``verify``."""
    await is_repaired(world, worker)
    verified = await world.do("verify")
    assert verified.process.returncode == ExitCode.DONE, verified.err
    assert await compare(world, [ROOM]) == []
