"""Redis goes back to an older state: a whole worker notices, repairs itself, and ends exact."""

import re
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Final

import pytest

from tests.crowds import Crowd
from tests.redis_server import Forwarder, MortalServer
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
from tests.worlds import KEY, NO_ROUNDS, World
from worker.errors import ExitCode, RedisUnfitError

pytestmark = pytest.mark.processes

OTHERS: Final = {"schema": "1", "subscribe_key": KEY, "types": "only like"}


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


@pytest.mark.parametrize("is_killed", [False, True])
async def test_a_restart_without_loss_costs_nothing(
    mortal: tuple[World, MortalServer], *, is_killed: bool
) -> None:
    """The append-only file has everything, also after a kill. Nothing is owed or read again."""
    world, server = mortal
    crowd = Crowd(world.state, seed=55)
    repairs_soon(world)
    async with world.run_worker(**NO_ROUNDS) as worker:
        await loses(world, crowd, 60)
        await is_repaired(world, worker)
        lists = world.emulator.requests["actions"]
        async with crowd.acting(world.emulator):
            await (server.kill() if is_killed else server.end())
            await wait_until(lambda: worker.entries("redis_unavailable"), what=lambda: worker.err)
            await server.revive()
            await world.redis.connection_pool.disconnect()
            await crowd.has_acted(20)

        await wait_until(lambda: worker.entries("redis_restarted"), what=lambda: worker.err)
        await is_repaired(world, worker)
        assert causes(worker) == {"first_start"}
        assert not worker.entries("redis_went_back")
        assert world.emulator.requests["actions"] == lists


async def test_a_crash_costs_what_it_lost(
    mortal: tuple[World, MortalServer], tmp_path: Path
) -> None:
    """The end of the append-only file is gone. Rooms that it did not concern are not read."""
    world, server = mortal
    crowd = Crowd(world.state, seed=56, channels=("room", "hall"))
    repairs_soon(world)
    world.settings |= {"TALLY_CHANNELS": "room,hall", "TALLY_LOG_LEVEL": "debug", **NO_ROUNDS}
    async with world.run_worker() as worker:
        await loses(world, crowd, 60)
        await is_repaired(world, worker)
        copy = server.copy(tmp_path / "copy")
        reconciles = len(worker.entries("reconcile_ends"))
        for _ in range(CACHED):
            crowd.act("hall")
        await world.settles()

        await goes_back(world, server, copy)

        await notices(worker, "redis_went_back")
        await is_repaired(world, worker)
        repaired = [entry["channel"] for entry in worker.entries("reconcile_ends")[reconciles:]]
        assert set(repaired) == {"hall"}
        assert [entry["channels"] for entry in worker.entries("redis_went_back")] == [1]


async def test_an_emptied_redis_is_filled_again(world: World) -> None:
    """An idle worker claims it at once. Quiet rooms under a wildcard are counted again."""
    world.settings["TALLY_SETTLE_SECONDS"] = "0.5"
    async with world.run_worker(TALLY_CHANNELS="r.*", **NO_ROUNDS):
        world.react(channel="r.quiet")
        await world.settles()
    async with world.run_worker(TALLY_CHANNELS="r.*", **NO_ROUNDS) as worker:
        await world.redis.flushall()

        await notices(worker, "redis_went_back")
        await is_repaired(world, worker)
        meta = await world.redis.hgetall("tally:meta")
        assert (meta["subscribe_key"], meta["settle_seconds"]) == (KEY, "0.5")
        other = await world.run_command("backfill", "r.quiet", TALLY_TYPES="like")
        assert other.code == ExitCode.REDIS_UNFIT
        assert "TALLY_TYPES" in other.err
        assert await world.redis.smembers("tally:channels") == {"r.quiet"}


async def test_another_owner_stops_a_worker(world: World) -> None:
    """Redis was emptied, and others claimed it before this worker noticed."""
    world.settings["TALLY_SETTLE_SECONDS"] = "0.5"

    with pytest.raises(RedisUnfitError, match="TALLY_TYPES"):
        await lose_the_namespace(world)

    assert "tally:channels" not in await world.redis.keys()


async def lose_the_namespace(world: World) -> None:
    """Give the namespace of a running worker to others; return when the worker has ended."""
    async with world.run_worker() as worker:
        world.react()
        await world.settles()
        async with world.redis.pipeline() as pipe:
            pipe.flushall()
            pipe.hset("tally:meta", mapping=OTHERS)
            await pipe.execute()
        await wait_until(worker.work.done)


async def test_a_setting_is_shared_or_refused(world: World) -> None:
    """Beside a worker another retention is refused. After its end it is taken over."""
    async with world.run_worker(TALLY_RETENTION_DAYS="90"):
        refused = await world.run_command("reconcile", "room", TALLY_RETENTION_DAYS="30")
        compared = await world.run_command("verify", "room", TALLY_RETENTION_DAYS="30")
    accepted = await world.run_command("verify", "room", TALLY_RETENTION_DAYS="30")

    for command in (refused, compared):
        assert command.code == ExitCode.REDIS_UNFIT
        assert "TALLY_RETENTION_DAYS is 90 days in the workers" in command.err
        assert "here it is 30" in command.err
    assert accepted.code == ExitCode.DONE


class TwoViews(Forwarder):
    """A proxy whose connections show another run of the same server in turn."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._names = cycle([b"a", b"b"])

    def view(self) -> Callable[[bytes], bytes]:
        """Return what a new connection makes of an answer."""
        name = next(self._names)
        return lambda answer: re.sub(rb"(run_id:).", rb"\g<1>" + name, answer)


async def test_runs_that_differ_are_no_sign(
    mortal: tuple[World, MortalServer], tmp_path: Path
) -> None:
    """A worker behind such a proxy says so once, and works. It still notices a loss."""
    world, server = mortal
    crowd = Crowd(world.state, seed=57)
    repairs_soon(world)
    async with TwoViews(server.port) as door:
        world.settings["REDIS_URL"] = door.url
        async with world.run_worker(**NO_ROUNDS) as worker:
            await loses(world, crowd, 60)
            await is_repaired(world, worker)
            copy = server.copy(tmp_path / "copy")
            await loses(world, crowd, CACHED)
            assert causes(worker) == {"first_start"}
            assert len(worker.entries("redis_runs_differ")) == 1

            await goes_back(world, server, copy)
            await door.switch(server.port)
            await loses(world, crowd, CACHED)

            await notices(worker, "redis_went_back")
            await is_repaired(world, worker)
            assert len(worker.entries("redis_runs_differ")) == 1
