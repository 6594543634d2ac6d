"""What the runbook says a channel costs in requests is what the worker sends."""

import math
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

import pytest
from redis.asyncio import Redis

from tests.deploy.dockerfile import ROOT
from tests.end_to_end.processes import KEY, MESSAGE, Child, Stage, wait_until
from tests.redis_server import RedisServer
from worker.emulator import Emulator

SIZES: Final = (0, 1, 100, 101, 199, 200)
OLD: Final = 250
ROUNDS: Final = 3


def requests(actions: int) -> int:
    """Return what reading a list of so many actions takes, as the runbook has it."""
    return 3 + math.ceil(max(0, actions - 100) / 99) if actions else 1


@pytest.fixture
async def stage(real_redis: Redis, valkey: RedisServer, tmp_path: Path) -> AsyncIterator[Stage]:
    """Set a stage of channels named for how many actions each has, all of them an hour old."""
    async with Emulator(seed=1, subscribe_key=KEY) as emulator:
        stage = Stage(emulator, real_redis, valkey.url, tmp_path)
        ago = stage.state.time.now() - 3600 * 10**7
        for size in (*SIZES, OLD):
            for number in range(size):
                uuid = f"user-{number}"
                stage.state.add(f"of-{size}", MESSAGE, "reaction", "👍", uuid, published=False, at=ago + number)
        try:
            yield stage
        finally:
            stage.end()


def test_the_formula_is_the_runbooks() -> None:
    """Word for word, so that neither changes without the other."""
    told = "requests(actions) = 1 if there are none, else 3 + ceil((actions - 100) / 99), no less than 3"
    assert told in (ROOT / "deploy/README.md").read_text(encoding="utf-8")


async def test_a_backfill_a_reconcile_and_a_verify_cost_what_is_said(stage: Stage) -> None:
    """Pages as by the formula; and the clock once, twice, three times for each channel."""
    channels = [f"of-{size}" for size in SIZES]
    for command, clock in (("backfill", 1), ("reconcile", 2), ("verify", 3)):
        stage.emulator.requests.clear()
        child = await stage.do(command, *channels, TALLY_SETTLE_SECONDS="0.1")
        assert stage.emulator.requests == {
            "actions": sum(map(requests, SIZES)),
            "time": clock * len(SIZES),
        }, command + child.err


async def test_a_round_costs_what_is_said(stage: Stage) -> None:
    """The recent past, in which nothing happened here, and a piece of the rest, which is all of it."""
    worker = await stage.follow(
        TALLY_CHANNELS=f"of-{OLD}",
        TALLY_SETTLE_SECONDS="0.1",
        TALLY_RECONCILE_SECONDS="2",
        TALLY_RECONCILE_WINDOW="1",
        TALLY_RECONCILE_FULL_SECONDS="2",
    )
    before = await costs(stage, worker, rounds=1)
    after = await costs(stage, worker, rounds=1 + ROUNDS)
    assert after["actions"] - before["actions"] == ROUNDS * (requests(0) + requests(OLD))
    # Whether the one that tells when the next round begins has been sent is chance, at both ends.
    assert abs(after["time"] - before["time"] - ROUNDS * (3 + 2)) <= 1


async def costs(stage: Stage, worker: Child, rounds: int) -> Mapping[str, int]:
    """Return how many requests were made when so many rounds have ended, before the next begins."""

    def have_ended() -> bool:
        starts, ends = worker.entries("reconcile_starts"), worker.entries("reconcile_ends")
        in_rounds = [each for each in starts if each["since"] or each["until"]]
        return len(in_rounds) >= 2 * rounds and len(starts) == len(ends)

    await wait_until(have_ended, what=lambda: worker.err[-3000:])
    assert len(worker.entries("round_starts")) == rounds
    return dict(stage.emulator.requests)
