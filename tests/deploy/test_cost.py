"""What the runbook says a channel costs in requests is what the worker sends."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from tests.deploy.dockerfile import ROOT
from tests.redis_server import RedisServer
from tests.waiting import wait_until
from tests.worlds import KEY, MESSAGE
from worker.domain.position import TICKS_PER_SECOND, Range
from worker.emulator import Emulator
from worker.reconciliation.reconcile import ReconcileOptions
from worker.reconciliation.repair_queue import RepairQueue
from worker.reconciliation.rounds import Rounds, Schedule
from worker.service import commands
from worker.service.parts import (
    build_backfiller,
    build_reconciler,
    build_repair_steps,
    open_parts,
)
from worker.settings import Settings

SIZES: Final = (0, 1, 100, 101, 199, 200)
CHANNELS: Final = [f"of-{size}" for size in SIZES]
OLD: Final = 250
HOUR: Final = 3600
COMMANDS: Final[dict[str, tuple[int, Callable[[Settings], Coroutine[Any, Any, object]]]]] = {
    "backfill": (1, lambda settings: commands.run_backfill(settings, CHANNELS, Range(), None)),
    "reconcile": (
        2,
        lambda settings: commands.run_reconcile(
            settings, CHANNELS, Range(), ReconcileOptions(), None
        ),
    ),
    "verify": (3, lambda settings: commands.run_verify(settings, CHANNELS, 1, None)),
}
"""What each asks the clock for a channel, and the command itself."""


def requests(actions: int) -> int:
    """Return the requests for a list of so many actions, as the runbook says."""
    return 3 + math.ceil(max(0, actions - 100) / 99) if actions else 1


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    """A PubNub with channels named for their number of actions, all an hour old."""
    async with Emulator(seed=1, subscribe_key=KEY) as emulator:
        ago = emulator.state.time.now() - HOUR * TICKS_PER_SECOND
        for size in (*SIZES, OLD):
            for number in range(size):
                uuid = f"user-{number}"
                emulator.state.add(
                    f"of-{size}", MESSAGE, "reaction", "👍", uuid, published=False, at=ago + number
                )
        yield emulator


@pytest.fixture
def settings(emulator: Emulator, real_redis: Redis, valkey: RedisServer) -> Settings:
    """Settings of a worker on an empty Redis."""
    given = {
        "PUBNUB_SUBSCRIBE_KEY": KEY,
        "PUBNUB_ORIGIN": emulator.origin,
        "PUBNUB_TLS": "false",
        "REDIS_URL": valkey.url,
        "TALLY_HISTORY_RATE": "1000",
    }
    return Settings.model_validate(given)


def test_the_runbook_has_the_formula() -> None:
    """Word for word, so that neither changes without the other."""
    rest = "else 3 + ceil((actions - 100) / 99), no less than 3"
    assert f"requests(actions) = 1 if there are none, {rest}" in (
        ROOT / "deploy/reference.md"
    ).read_text(encoding="utf-8")


async def test_commands_cost_what_the_runbook_says(emulator: Emulator, settings: Settings) -> None:
    """Pages by the formula; the clock once, twice or three times for each channel."""
    for name, (clock, command) in COMMANDS.items():
        emulator.requests.clear()
        await command(settings)
        assert emulator.requests == {
            "actions": sum(map(requests, SIZES)),
            "time": clock * len(SIZES),
        }, name


async def test_a_round_costs_what_the_runbook_says(emulator: Emulator, settings: Settings) -> None:
    """The recent past, in which nothing happened here, and a piece of the rest, which is all of it.

    The clock is read three times for the channel and twice for the round.
    """
    async with going_round(settings) as rounds:
        time = emulator.state.time
        time.advance(HOUR * 1.5 - time.now() / TICKS_PER_SECOND % HOUR)  # to the middle of an hour
        for _ in range(3):
            time.advance(HOUR)
            emulator.requests.clear()
            waiting = asyncio.create_task(rounds.run())
            await wait_until(lambda: emulator.requests["time"])
            waiting.cancel()
            await asyncio.wait([waiting])
            await rounds.once()
            assert emulator.requests == {"actions": requests(0) + requests(OLD), "time": 3 + 2}


@asynccontextmanager
async def going_round(settings: Settings) -> AsyncIterator[Rounds]:
    """Yield a worker's hourly rounds over one channel with a past; a turn has one piece."""
    async with open_parts(settings) as parts:
        await build_backfiller(parts, tries=1).run([f"of-{OLD}"], Range())
        reconcile = build_reconciler(parts, tries=1)
        steps = build_repair_steps(parts, reconcile, tries=1)
        queue = RepairQueue(steps, parts.tables, lambda _: False)
        schedule = Schedule(every=HOUR, window=1, full=HOUR)
        yield Rounds(
            reconcile,
            queue,
            parts.entries,
            parts.tables,
            parts.client.time,
            schedule,
        )
