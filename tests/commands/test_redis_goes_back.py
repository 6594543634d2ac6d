"""Redis goes back to an older state: a whole worker notices, repairs itself, and ends exact."""

from pathlib import Path

import pytest

from tests.crowds import Crowd
from tests.redis_server import MortalServer
from tests.rollbacks import (
    CACHED,
    HOUR,
    OVERFLOWING,
    causes,
    goes_back,
    is_repaired,
    loses,
    notices,
    repairs_soon,
)
from tests.waiting import wait_until
from tests.worlds import World

pytestmark = pytest.mark.processes


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make waits for Redis short."""
    monkeypatch.setattr("worker.store.redis_retry.LONGEST_WAIT_SECONDS", 0.1)


@pytest.mark.parametrize("acts", [CACHED, OVERFLOWING])
async def test_a_restored_copy_is_repaired(
    mortal: tuple[World, MortalServer], acts: int, tmp_path: Path
) -> None:
    """It lacks the newest acts of the crowd."""
    world, server = mortal
    crowd = Crowd(world.state, seed=52)
    repairs_soon(world)
    async with world.run_worker() as worker:
        await loses(world, crowd, 60)
        await is_repaired(world, worker)
        copy = server.copy(tmp_path / "copy")
        await loses(world, crowd, acts)

        await goes_back(world, server, copy)

        await notices(worker, "redis_went_back")
        await is_repaired(world, worker)
        if (
            acts == OVERFLOWING
        ):  # else its cursor is read again at once, and PubNub's cache has all that was lost
            await wait_until(
                lambda: any(entry["pruned"] for entry in worker.entries("reconcile_ends")),
                what=lambda: worker.err,
            )
        assert "stale_cursor" not in causes(worker)


async def test_an_old_copy_is_repaired(mortal: tuple[World, MortalServer], tmp_path: Path) -> None:
    """It is an hour old, so its cursor is older than PubNub's cache."""
    world, server = mortal
    crowd = Crowd(world.state, seed=53)
    repairs_soon(world)
    async with world.run_worker() as worker:
        await loses(world, crowd, 60)
        await is_repaired(world, worker)
        (cursor,) = await world.cursors()
        await world.redis.hincrby(cursor, "saved_at", -HOUR)
        copy = server.copy(tmp_path / "copy")
        await loses(world, crowd, OVERFLOWING)

        await goes_back(world, server, copy)

        await notices(worker, "redis_went_back")
        world.react(uuid="afterwards")
        await notices(worker, "stale_cursor")
        await is_repaired(world, worker)


async def test_a_copy_between_two_workers_is_repaired(
    mortal: tuple[World, MortalServer], tmp_path: Path
) -> None:
    """No worker runs while the copy is restored. The next one resumes at its cursor."""
    world, server = mortal
    crowd = Crowd(world.state, seed=54)
    repairs_soon(world)
    async with world.run_worker() as worker:
        await loses(world, crowd, 60)
        await is_repaired(world, worker)
        copy = server.copy(tmp_path / "copy")
        await loses(world, crowd, OVERFLOWING)
    await goes_back(world, server, copy)

    async with world.run_worker() as worker:
        await notices(worker, "overflow")
        await is_repaired(world, worker)


async def test_a_lossless_restart_ends_exact(mortal: tuple[World, MortalServer]) -> None:
    """The worker cannot know that Redis kept everything, so it repairs."""
    world, server = mortal
    crowd = Crowd(world.state, seed=55)
    repairs_soon(world)
    async with world.run_worker() as worker:
        await loses(world, crowd, 60)
        async with crowd.acting(world.emulator):
            await server.end()
            await wait_until(lambda: worker.entries("redis_unavailable"), what=lambda: worker.err)
            await server.revive()
            await world.redis.connection_pool.disconnect()
            await crowd.has_acted(20)

        await notices(worker, "redis_went_back")
        await is_repaired(world, worker)
