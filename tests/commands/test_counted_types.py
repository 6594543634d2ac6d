"""A slip in TALLY_TYPES is corrected without harm; types that were counted bind a namespace."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.bench.in_process import Running
from tests.redis_server import RedisServer
from tests.waiting import wait_until
from tests.worlds import KEYS, ROOM, World, open_world
from worker.errors import ExitCode, RedisUnfitError
from worker.service import worker
from worker.service.configured import claim_of
from worker.service.parts import Parts
from worker.store.connection import connect
from worker.store.counted_types import claim_namespace
from worker.store.ownership import Ownership

QUICKLY = {"TALLY_SETTLE_SECONDS": "0.3", "TALLY_LOG_FORMAT": "json"}
SLIP = {**QUICKLY, "TALLY_TYPES": "raction"}
RIGHT = {**QUICKLY, "TALLY_TYPES": "reaction"}


@pytest.fixture
async def world(valkey: RedisServer, real_redis: Any, tmp_path: Path) -> AsyncIterator[World]:
    """A world on an empty Redis."""
    async with open_world(valkey.url, tmp_path) as world:
        yield world


async def counts_nothing(world: World) -> None:
    """Let a worker with a slip follow the room until it owes nothing."""
    async with world.run_worker(**SLIP) as child:
        world.react("👍", "ana")
        await wait_until(world.owes_nothing, what=lambda: child.err)
        assert await world.tallies() == {}


async def test_a_slip_in_the_types_is_corrected_without_harm(world: World) -> None:
    """What came before is counted, too: the room is owed a backfill."""
    world.add_past(3, "🎉")
    await counts_nothing(world)

    doctor = await world.run_command("doctor", **RIGHT)
    async with world.run_worker(**RIGHT) as child:
        await world.wait_for_counts({"👍": 1, "🎉": 3})
        await wait_until(world.owes_nothing, what=lambda: child.err)

    assert doctor.code == ExitCode.DONE, doctor
    assert "it counts nothing yet, so its types become those of TALLY_TYPES" in doctor.out
    (entry,) = child.entries("types_replaced")
    assert (entry["before"], entry["now"]) == ("only raction", "only reaction")
    assert await world.redis.hget(KEYS.meta, "types") == "only reaction"


async def test_a_worker_with_corrected_types_is_ready_after_a_backfill(world: World) -> None:
    """The settle time is a minute, so no reconcile can have counted the past before."""
    world.add_past(3, "🎉")
    await counts_nothing(world)
    minute = {**RIGHT, "TALLY_SETTLE_SECONDS": "60"}

    world.state.set_outage("server_error", ["actions"])
    async with world.run_worker(**minute) as worker:
        waiting = await world.run_command("healthcheck", TALLY_HTTP=http_of(worker))
        world.state.set_outage(None)
        await world.wait_for_counts({"👍": 1, "🎉": 3})

    assert waiting.code == ExitCode.FAILED
    assert "backfill: the first backfill of 'room' is not done yet" in waiting.out


def http_of(worker: Running) -> str:
    """Return the address of a worker's pages."""
    (entry,) = worker.entries("http_listens")
    return f"{entry['host']}:{entry['port']}"


async def test_a_backfill_begins_again_with_the_right_types(world: World) -> None:
    """Progress that was saved under the slip does not count."""
    world.add_past(3, "🎉")
    await counts_nothing(world)
    progress = {"newest": "17700000000000000", "next": "1", "oldest": "", "actions": "3"}
    await world.redis.hset(KEYS.progress(ROOM), mapping=progress)

    ended = await world.run_command("backfill", **RIGHT)

    assert ended.code == ExitCode.DONE, ended
    assert await world.counts() == {"🎉": 3, "👍": 1}


async def test_types_that_were_counted_bind_the_namespace(world: World) -> None:
    """Until everything that was counted is forgotten."""
    async with world.run_worker(**RIGHT):
        world.react("👍", "ana")
        await world.wait_for_counts({"👍": 1})
    refused = await world.run_command("backfill", **SLIP)
    forgotten = await world.run_command("forget", ROOM, "--yes", TALLY_CHANNELS="hall", **RIGHT)
    accepted = await world.run_command("backfill", **SLIP)

    assert refused.code == ExitCode.REDIS_UNFIT
    assert "The namespace tally counts only reaction" in refused.err
    assert forgotten.code == ExitCode.DONE, forgotten
    assert accepted.code == ExitCode.DONE, accepted


async def test_a_worker_whose_claim_was_replaced_does_not_start(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two start at once. The other one claims before this one has registered."""
    world.add_past(3, "🎉")
    resume = worker.resume

    async def resume_meanwhile(parts: Parts, *args: Any) -> Any:
        assignments = await resume(parts, *args)
        other = replace(claim_of(parts.settings), types="only raction")
        async with connect(world.settings["REDIS_URL"]) as redis:
            ownership = Ownership(redis, KEYS, other)
            await claim_namespace(redis, KEYS, other, ownership)
        return assignments

    monkeypatch.setattr(worker, "resume", resume_meanwhile)
    said = "counts only raction; this worker is set to count only reaction"
    with pytest.raises(RedisUnfitError, match=said):
        async with world.commands().worker(**RIGHT) as child:
            await wait_until(child.work.done)

    assert await world.tallies() == {}


async def test_the_types_of_a_worker_that_runs_are_not_replaced(world: World) -> None:
    """It may count its first event at any moment. Nothing changes, and nothing is owed."""
    async with world.run_worker(**RIGHT) as child:
        await wait_until(world.owes_nothing, what=lambda: child.err)
        refused = await world.run_command("backfill", **SLIP)
        assert await world.owes_nothing()

    assert refused.code == ExitCode.REDIS_UNFIT
    assert "stop all workers, wait 30 seconds" in refused.err
    assert await world.redis.hget(KEYS.meta, "types") == "only reaction"
