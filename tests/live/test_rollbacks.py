"""Redis goes back to an older state under a subscription."""

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
import structlog

from tests.bench.bench import KEYS, Bench, claimed_recovery
from tests.bench.subscriptions import (
    MESSAGE,
    SubscriptionRun,
    react,
    running_subscription,
    wait_until_read,
)
from tests.bench.waiting import wait_until_true
from tests.store.random_channel import RandomChannel
from tests.waiting import wait_until
from worker.applying.rollback import RollbackRecovery
from worker.store.connection import recovery_client
from worker.store.rollback_detector import RollbackDetector


@pytest.mark.parametrize("went_back", [True, False])
async def test_an_idle_subscription_notices_a_rollback(bench: Bench, *, went_back: bool) -> None:
    """No event is needed. Without a rollback it goes on."""
    async with running_subscription(bench) as run:
        with structlog.testing.capture_logs() as entries:
            if went_back:
                bench.applier.rollback_detector.accept(None)
            run.subscription.restart_if_redis_went_back()
            await wait_until(lambda: len(run.subscription.polling.queue) == 0)
            await wait_until(
                lambda: (
                    any(entry["event"] == "subscription_starts" for entry in entries)
                    or not went_back
                )
            )
            react(bench, 1)
            await run.settled()
        began = [entry for entry in entries if entry["event"] == "subscription_starts"]
        assert len(began) == int(went_back)
        assert not [entry for entry in entries if entry["event"] == "gap"]


@pytest.fixture
async def recovery(bench: Bench) -> AsyncIterator[RollbackRecovery]:
    """Lay the parts out with a recovery, as a worker has it."""
    rollback_detector = RollbackDetector()
    async with recovery_client(bench.redis) as whoever_answers:
        recovery = await claimed_recovery(rollback_detector, whoever_answers, ["room"])
        bench.lay_out(rollback_detector, recovery)
        yield recovery


@pytest.mark.parametrize("forgotten", ["the cursor", "its newest saves", "everything since"])
async def test_a_rollback_marks_every_channel(
    bench: Bench, recovery: RollbackRecovery, forgotten: str
) -> None:
    """Reading goes on from what Redis still knows, and ends exact."""
    marked: list[set[str]] = []
    recovery.add_listener(lambda channels: marked.append(set(channels)))
    scene = RandomChannel(bench.redis)
    async with running_subscription(bench) as run:
        await bench.tables.channels.add(["attic"])
        react(bench, 3)
        await run.settled()
        await wait_until_true(lambda: bench.tables.channels.unknown(["room"]), frozenset())
        key = KEYS.cursor(run.subscription.id)
        pending = bench.tables.pending
        await pending.clear("room", await pending.read("room"))
        before, copy = await cast("Any", bench.redis).hgetall(key), await scene.copy()
        bench.emulator.state.remove(
            "room", MESSAGE, bench.emulator.state.actions("room")[0].timetoken, "user0"
        )
        react(bench, 3, start=3)
        await run.settled()
        await wait_until_saved(bench, run, before)

        match forgotten:
            case "the cursor":
                await bench.redis.delete(key)
            case "its newest saves":
                await cast("Any", bench.redis).hset(key, mapping=before)
            case _:
                await scene.go_back(copy)
        react(bench, 3, start=6)

        await wait_until(lambda: bool(marked))
        assert "redis_went_back" in await run.owed("room")
        assert await run.owed("attic") == {"redis_went_back"}
        await run.settled()
        await wait_until_true(run.has_begun, expected=True)
        await wait_until_read(bench)
        react(bench, 1, start=9)
        await run.settled()
        assert await run.owed("room") - {"redis_went_back"} == (
            {"first_start"} if forgotten == "the cursor" else set()
        )
        assert marked == [{"room", "attic"}]
        assert bench.applier.rollback_detector.generation == 1
        assert not bench.applier.rollback_detector.is_suspect


async def wait_until_saved(bench: Bench, run: SubscriptionRun, before: dict[str, str]) -> None:
    """Wait until the cursor was saved again."""

    async def is_saved() -> bool:
        saved = await bench.tables.cursors.read(run.subscription.id)
        return saved is not None and saved.saves > int(before["saves"])

    await wait_until_true(is_saved, expected=True)
