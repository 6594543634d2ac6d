"""A subscription: exact counts, a cursor that waits for them, a mark for each gap it passes."""

import asyncio
from collections import Counter
from functools import partial
from itertools import count
from typing import Any

import pytest
import structlog

from tests.bench.bench import KEYS, SETTLE_SECONDS, Bench
from tests.bench.subscriptions import (
    MESSAGE,
    ROOM,
    SubscriptionRun,
    react,
    running_subscription,
    wait_until_asked_again,
    wait_until_read,
)
from tests.bench.waiting import LONGEST_SECONDS, Moments, wait_until_redis_fails, wait_until_true
from tests.waiting import wait_until
from worker.domain.entry import Outcome
from worker.emulator.stream import Cursor as EmulatorCursor
from worker.emulator.subscription import Subscription as EmulatorSubscription
from worker.live.assignment import Assignment
from worker.source.names import Names


async def test_live_events_become_tallies(bench: Bench) -> None:
    """Additions and removals count when they arrive."""
    async with running_subscription(bench) as run:
        react(bench, 5)
        await run.settled()
        [first, *_] = bench.emulator.state.actions("room")
        bench.emulator.state.remove("room", MESSAGE, first.timetoken, first.identity.uuid)
        await run.settled()

    assert await bench.reader.get("room", MESSAGE) == {"reaction": {"👍": 4}}


async def test_a_restart_resumes_at_the_cursor(bench: Bench) -> None:
    """It catches up with what happened meanwhile, and marks nothing."""
    async with running_subscription(bench) as run:
        react(bench, 3)
        await run.settled()
    await bench.redis.delete(KEYS.owed("room"))
    react(bench, 60, start=3)

    async with running_subscription(bench) as run:
        await run.settled()
        assert run.repairs == []
        assert await run.owed("room") == set()


async def test_the_cursor_waits_for_its_events(bench: Bench) -> None:
    """While Redis takes no events, it stays. After a kill the events are read again."""
    async with running_subscription(bench) as run:
        before = await run.cursor()
        await bench.redis.config_set("maxmemory", "1")
        try:
            react(bench, 3)
            await wait_until_redis_fails(times=3)
            assert await run.cursor() == before
        finally:
            await bench.redis.config_set("maxmemory", "0")
        await run.settled()

        async def has_moved() -> bool:
            return await run.cursor() != before

        await wait_until_true(has_moved, expected=True)


async def test_a_stop_applies_polled_answers(bench: Bench, held: asyncio.Event) -> None:
    """All of them are counted, and the cursor covers them."""
    async with running_subscription(bench) as run:
        for start in (0, 60):
            asked = bench.emulator.requests["subscribe"]
            react(bench, 60, start=start)
            await wait_until_asked_again(bench, asked)  # after a large answer it polls again
        run.subscription.stop()
        held.set()
    cursor = await run.cursor()

    assert await bench.counts() == bench.emulator.truth()
    assert cursor
    resume_point = EmulatorCursor(int(cursor.timetoken), cursor.region)
    assert bench.emulator.state.poll(EmulatorSubscription(("room",)), resume_point).messages == ()


async def test_a_stale_answer_is_read_again(bench: Bench) -> None:
    """The machine was suspended. The next poll begins at the saved cursor."""
    with structlog.testing.capture_logs() as entries:
        async with running_subscription(bench) as run:
            await bench.redis.config_set("maxmemory", "1")
            try:
                react(bench, 3)
                await wait_until_redis_fails()
                bench.clock.now += SETTLE_SECONDS + 1
                await wait_until(
                    lambda: any(entry["event"] == "answer_dropped" for entry in entries)
                )
            finally:
                await bench.redis.config_set("maxmemory", "0")
            await run.settled()
    assert [entry["event"] for entry in entries].count("subscription_starts") == 2


async def test_a_stop_ends_a_start_at_any_step(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step of a start is tried."""
    moments, has_started = Moments(bench, monkeypatch), False
    for number in count(-1):
        await bench.redis.flushall()
        run = SubscriptionRun(bench, Assignment(ROOM))
        moments.await_one(number, run.subscription.stop)
        running = asyncio.create_task(run.subscription.run())
        if number < 0:
            run.subscription.stop()  # before its first step
        while not (running.done() or has_started):
            await asyncio.sleep(0.001)
            has_started = bench.emulator.waiting > 0 and await run.has_begun()
        run.subscription.stop()
        await asyncio.wait_for(running, LONGEST_SECONDS)
        if has_started:
            break
    assert number > 10


@pytest.fixture
def held(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Let every group with an event wait until this is set."""
    apply, release = bench.applier.apply, asyncio.Event()

    async def hold(decoded: Any, *args: Any, **options: Any) -> Counter[Outcome]:
        if decoded:
            await release.wait()
        return await apply(decoded, *args, **options)

    monkeypatch.setattr(bench.applier, "apply", hold)
    return release


async def test_waiting_answers_are_committed_together(bench: Bench, held: asyncio.Event) -> None:
    """The last one's cursor is saved once, and every new channel is marked."""
    async with running_subscription(bench, Names(wildcards=("news.*",))) as run:
        before = await bench.tables.cursors.read(run.subscription.id)
        for number, channel in enumerate(("news.a", "news.b", "news.c")):
            asked = bench.emulator.requests["subscribe"]
            react(bench, 60, channel, start=60 * number)
            await wait_until_asked_again(bench, asked)
        assert await run.cursor() == (before and before.cursor)
        held.set()
        await run.settled()
        for channel in ("news.a", "news.b", "news.c"):
            await wait_until_true(partial(run.owed, channel), {"new_channel"})

        async def saves() -> int:
            saved = await bench.tables.cursors.read(run.subscription.id)
            return saved.saves if saved else 0

        assert before
        await wait_until_true(saves, before.saves + 2)


async def test_a_small_answer_is_applied_before_the_next_poll(
    bench: Bench, held: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What happens meanwhile comes in one answer."""
    monkeypatch.setattr("worker.live.polling.APPLY_WAIT_SECONDS", 60)
    async with running_subscription(bench) as run:
        react(bench, 1)
        await wait_until(lambda: bench.emulator.waiting == 0)
        asked = bench.emulator.requests["subscribe"]
        for number in range(1, 10):
            react(bench, 1, start=number)
            await bench.client.time()  # a poll that began meanwhile arrives before this answer
        assert bench.emulator.requests["subscribe"] == asked
        held.set()
        await run.settled()
        assert bench.emulator.requests["subscribe"] <= asked + 2


@pytest.mark.parametrize(
    "faults", [{"duplicate": 0.5}, {"reorder": 1.0}, {"late": 0.5}, {"ahead": 0.5}, {"rewind": 0.3}]
)
async def test_faulty_delivery_changes_no_count(bench: Bench, faults: dict[str, float]) -> None:
    """Events come twice, shuffled, late, ahead of the cursor and behind it."""
    bench.emulator.state.faults.replace(faults)
    async with running_subscription(bench) as run:
        rounds, struck = count(), bench.emulator.state.faults.struck
        while (round := next(rounds)) < 10 or struck.total() <= 5:
            asked = bench.emulator.requests["subscribe"]
            react(bench, 8, start=8 * round)
            for action in bench.emulator.state.actions("room")[::3]:
                bench.emulator.state.remove("room", MESSAGE, action.timetoken, action.identity.uuid)
            await wait_until_asked_again(bench, asked)
            await wait_until_read(bench)
        await run.settled()
