"""What the runbook says a channel costs in requests is what the worker sends."""

import math
from collections.abc import AsyncIterator, Callable, Coroutine
from random import Random
from typing import Any, Final, cast

import pytest
from redis.asyncio import Redis

from tests.deploy.dockerfile import ROOT
from tests.redis_server import RedisServer
from tests.worlds import KEY, KEYS, MESSAGE
from worker.domain.position import TICKS_PER_SECOND, Range
from worker.emulator import Emulator
from worker.reconciliation.repair_queue import RepairQueue
from worker.reconciliation.report import ReconcileOptions
from worker.reconciliation.rounds import Rounds
from worker.reconciliation.schedule import Schedule
from worker.service import commands
from worker.service.parts import (
    Parts,
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
COMMANDS: Final[dict[str, Callable[[Settings], Coroutine[Any, Any, object]]]] = {
    "backfill": lambda settings: commands.run_backfill(settings, CHANNELS, Range(), None),
    "reconcile": lambda settings: commands.run_reconcile(
        settings, CHANNELS, Range(), ReconcileOptions(), None
    ),
    "verify": lambda settings: commands.run_verify(settings, CHANNELS, 1, None),
}


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
    """Pages by the formula, and the clock once for all channels."""
    for name, command in COMMANDS.items():
        emulator.requests.clear()
        await command(settings)
        # The first one asks for each channel whether its name is right.
        asked = sum(map(bool, SIZES)) if name == "backfill" else 0
        actions = sum(map(requests, SIZES)) + asked
        assert emulator.requests == {"actions": actions, "time": 1}, name


async def test_silent_channels_cost_one_request_each(
    emulator: Emulator, settings: Settings
) -> None:
    """A verify or a reconcile of many channels in which nobody ever reacted."""
    silent = [f"silent-{number}" for number in range(300)]
    for command in (
        commands.run_verify(settings, silent, 1, None),
        commands.run_reconcile(settings, silent, Range(), ReconcileOptions(), None),
    ):
        emulator.requests.clear()
        await command
        assert emulator.requests == {"actions": 300, "time": 1}


async def test_a_round_costs_what_the_runbook_says(
    emulator: Emulator, settings: Settings, real_redis: Redis
) -> None:
    """A look at everything, a look at the recent past, and nothing where none is due."""
    async with open_parts(settings) as parts:
        channel = f"of-{OLD}"
        await build_backfiller(parts, tries=1).run([channel], Range())
        rounds = one_channel_rounds(parts)
        for wanted in (requests(OLD), 0):
            emulator.requests.clear()
            await rounds.once()
            assert emulator.requests["actions"] == wanted
        began = await parts.tables.server.now() - HOUR * 1000 // 2
        for key in (KEYS.proven, KEYS.proven_full):
            await cast("Any", real_redis).zadd(key, {channel: began})
        emulator.requests.clear()
        await rounds.once()
        assert emulator.requests == {"actions": requests(0)}


def one_channel_rounds(parts: Parts) -> Rounds:
    """Return a worker's rounds whose window is short: nothing is new in it."""
    reconciler = build_reconciler(parts, tries=1)
    steps = build_repair_steps(parts, reconciler, tries=1)
    queue = RepairQueue(steps, parts.tables, lambda _: False)
    schedule = Schedule(every=HOUR / 10, window=1, full=HOUR * 168, rate=20)
    now = parts.pubnub_clock.now
    return Rounds(reconciler, queue, parts.tables, now, schedule, Random(1))
