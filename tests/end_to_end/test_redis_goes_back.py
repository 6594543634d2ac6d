"""Redis goes back in time under a running worker, by a failover.

What an operator does with copies is tried in ``tests/commands``.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.crowds import Crowd
from tests.redis_server import Forwarder, RedisServer
from tests.rollbacks import (
    OVERFLOWING,
    is_repaired,
    loses,
    notices,
    repairs_soon,
)
from tests.waiting import wait_until
from tests.worlds import World, open_world
from worker.store.connection import connect


class Pair(NamedTuple):
    """A primary, its replica, and the address that leads to one of them."""

    primary: RedisServer
    replica: RedisServer
    door: Forwarder


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[World, Pair]]:
    """A world whose Redis is a pair; the settings have the address in front of it."""
    async with AsyncExitStack() as stack:
        primary = RedisServer(None, **{"repl-diskless-sync-delay": "0"})
        stack.callback(primary.stop)
        replica = RedisServer(replicaof=f"127.0.0.1 {primary.port}")
        stack.callback(replica.stop)
        door = await stack.enter_async_context(Forwarder(primary.port))
        world = await stack.enter_async_context(open_world(primary.url, tmp_path))
        world.settings["REDIS_URL"] = door.url
        yield world, Pair(primary, replica, door)


async def test_a_failover_to_a_lagging_replica_is_repaired(pair: tuple[World, Pair]) -> None:
    """The replica lacks more acts than PubNub's cache holds; the worker ends with the truth."""
    world, (_, replica, door) = pair
    crowd = Crowd(world.state, seed=51)
    repairs_soon(world)
    worker = await world.follow()
    await loses(world, crowd, 60)
    await is_repaired(world, worker)
    primary = world.redis
    async with connect(replica.url) as redis:
        world.redis = redis
        await wait_until(world.is_exact)
        await redis.replicaof("NO", "ONE")
        world.redis = primary
        await loses(world, crowd, OVERFLOWING)
        world.redis = redis
        assert not await world.is_exact()

        await door.switch(replica.port)

        await notices(worker, "redis_went_back")
        async with crowd.acting(world.emulator):
            await crowd.has_acted(20)
        await is_repaired(world, worker)
        assert worker.is_alive
        assert await worker.stopped() == 0
