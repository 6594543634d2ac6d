"""The runbook's two ways from one Redis to a cluster, on real servers, with real workers."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from reaction_tally import AsyncTallyReader, Change
from tests.comparison import compare
from tests.crowds import Crowd
from tests.deploy.dockerfile import ROOT
from tests.deploy.needed import needs, run
from tests.redis_cluster import RedisCluster
from tests.redis_server import RedisServer
from tests.rollbacks import is_repaired, loses
from tests.worlds import NO_ROUNDS, World, open_world
from worker.errors import ExitCode
from worker.store.connection import connect

ROOMS: Final = tuple(f"room-{number}" for number in range(9))
ACTS: Final = 40
"""PubNub's cache has room for more, so nothing overflows."""
RUNBOOK: Final = (ROOT / "deploy/runbook.md").read_text(encoding="utf-8")
SECTION: Final = RUNBOOK.partition("\n## From one Redis to a cluster\n")[2].partition("\n## ")[0]

pytestmark = pytest.mark.processes


@pytest.fixture
async def old(valkey: RedisServer, tmp_path: Path) -> AsyncIterator[World]:
    """A world on one server: nine rooms, and no list is read but for repairs."""
    async with open_world(valkey.url, tmp_path) as world:
        await world.redis.flushall()
        world.settings |= {
            "TALLY_CHANNELS": ",".join(ROOMS),
            "TALLY_SETTLE_SECONDS": "0.5",
            **NO_ROUNDS,
        }
        yield world


@pytest.fixture
async def new(old: World, redis_cluster: RedisCluster, tmp_path: Path) -> AsyncIterator[World]:
    """The same PubNub, and an empty cluster."""
    async with connect(redis_cluster.url) as redis:
        world = World(old.emulator, redis, redis_cluster.url, tmp_path)
        world.settings |= old.settings | {"REDIS_URL": redis_cluster.url}
        yield world
        world.end()


@pytest.fixture
def crowd(old: World) -> Crowd:
    """Users in all rooms."""
    return Crowd(old.state, seed=21, channels=ROOMS)


async def is_right(world: World) -> None:
    """Expect no difference, and that the operator sees none."""
    assert await compare(world, ROOMS) == []
    verified = await world.run_command("verify")
    assert verified.code == ExitCode.DONE, verified.out


def copy_keys(old: World, cluster: RedisCluster) -> None:
    """Type the runbook's line."""
    old_address = old.settings["REDIS_URL"].removeprefix("redis://")
    places = {"HOST:PORT": cluster.nodes[0].address, "OLD": old_address}
    (line,) = re.findall(r"^ {8}(redis-cli .*)$", SECTION, re.MULTILINE)
    done = run(*(places.get(word, word) for word in line.split()))
    assert done.returncode == 0, done.stdout + done.stderr


@needs("redis-cli", "that the runbook leads from one Redis to a cluster with its data")
async def test_the_data_comes_along(
    old: World, new: World, crowd: Crowd, redis_cluster: RedisCluster
) -> None:
    """The new servers are noticed, and every channel is repaired. A follower goes on."""
    room = ROOMS[0]
    async with old.run_worker() as worker:
        await loses(old, crowd, ACTS)
        await is_repaired(old, worker)
    async with AsyncTallyReader.from_url(old.settings["REDIS_URL"]) as reader:
        held = (await reader.page(room, [])).position
    await asyncio.to_thread(copy_keys, old, redis_cluster)
    assert await compare(new, ROOMS) == []

    async with new.run_worker() as worker:
        await loses(new, crowd, ACTS)
        old.react("🐌", "late", room)
        await is_repaired(new, worker)
        assert worker.entries("shards_changed")
        await is_right(new)
    async with AsyncTallyReader.from_url(new.settings["REDIS_URL"]) as reader:
        first = await anext(reader.changes([room], since={room: held}))
    assert isinstance(first, Change)


async def test_a_second_worker_fills_the_cluster(old: World, new: World, crowd: Crowd) -> None:
    """Beside the first one, under load. Both are exact, and the first one may stop."""
    first = await old.follow()
    await loses(old, crowd, ACTS)
    second = await new.follow()
    await loses(old, crowd, ACTS)
    await is_repaired(old, first)
    await is_repaired(new, second)
    await is_right(old)
    await is_right(new)

    assert await first.stopped() == ExitCode.DONE
    await loses(new, crowd, ACTS)
    await is_right(new)
    assert await second.stopped() == ExitCode.DONE
