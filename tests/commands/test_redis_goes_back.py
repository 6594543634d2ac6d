"""Redis goes back in time under a whole worker, which notices, repairs itself, and ends with the truth."""

from pathlib import Path

import pytest

from tests.bench.commands import following
from tests.end_to_end.processes import Crowd, Stage, wait_until
from tests.end_to_end.test_redis_goes_back import (
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
from tests.redis_server import MortalServer

pytestmark = pytest.mark.processes


@pytest.fixture(autouse=True)
def asks_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask Redis again soon, however long it has been away."""
    monkeypatch.setattr("worker.store.redis_retry.LONGEST_WAIT_SECONDS", 0.1)


@pytest.mark.parametrize("acts", [CACHED, OVERFLOWING])
async def test_a_restored_copy_is_repaired(
    mortal: tuple[Stage, MortalServer], acts: int, tmp_path: Path
) -> None:
    """A copy of before the last acts is put back under the worker, which notices, goes on, and is exact."""
    stage, server = mortal
    crowd = Crowd(stage.state, seed=52)
    repairs_soon(stage)
    async with following(stage) as worker:
        await loses(stage, crowd, 60)
        await is_repaired(stage, worker)
        copy = server.copy(tmp_path / "copy")
        await loses(stage, crowd, acts)

        await goes_back(stage, server, copy)

        await notices(worker, "redis_went_back")
        await is_repaired(stage, worker)
        if (
            acts == OVERFLOWING
        ):  # else its cursor is read again at once, and PubNub's cache has all that was lost
            await wait_until(
                lambda: any(entry["pruned"] for entry in worker.entries("reconcile_ends")),
                what=lambda: worker.err,
            )
        assert "stale_cursor" not in causes(worker)


async def test_an_old_copy_is_repaired(mortal: tuple[Stage, MortalServer], tmp_path: Path) -> None:
    """A copy of an hour ago: its cursor is older than PubNub's cache, which is owed too; the worker is exact."""
    stage, server = mortal
    crowd = Crowd(stage.state, seed=53)
    repairs_soon(stage)
    async with following(stage) as worker:
        await loses(stage, crowd, 60)
        await is_repaired(stage, worker)
        (cursor,) = await stage.cursors()
        await stage.redis.hincrby(cursor, "saved_at", -HOUR)
        copy = server.copy(tmp_path / "copy")
        await loses(stage, crowd, OVERFLOWING)

        await goes_back(stage, server, copy)

        await notices(worker, "redis_went_back")
        stage.react(uuid="afterwards")
        await notices(worker, "stale_cursor")
        await is_repaired(stage, worker)


async def test_a_copy_restored_between_two_workers_is_repaired(
    mortal: tuple[Stage, MortalServer], tmp_path: Path
) -> None:
    """No worker runs while the copy is put back: the next one goes on from the copy's cursor, and is exact."""
    stage, server = mortal
    crowd = Crowd(stage.state, seed=54)
    repairs_soon(stage)
    async with following(stage) as worker:
        await loses(stage, crowd, 60)
        await is_repaired(stage, worker)
        copy = server.copy(tmp_path / "copy")
        await loses(stage, crowd, OVERFLOWING)
    await goes_back(stage, server, copy)

    async with following(stage) as worker:
        await notices(worker, "overflow")
        await is_repaired(stage, worker)


async def test_a_restart_that_forgets_nothing_is_exact(mortal: tuple[Stage, MortalServer]) -> None:
    """Redis ends and comes back with all it had, under load: the worker cannot know that, looks again, and is exact."""
    stage, server = mortal
    crowd = Crowd(stage.state, seed=55)
    repairs_soon(stage)
    async with following(stage) as worker:
        await loses(stage, crowd, 60)
        async with crowd.acting(stage.emulator):
            await server.end()
            await wait_until(lambda: worker.entries("redis_unavailable"), what=lambda: worker.err)
            await server.revive()
            await stage.redis.connection_pool.disconnect()
            await crowd.has_acted(20)

        await notices(worker, "redis_went_back")
        await is_repaired(stage, worker)
