"""A subscription: exact counts, a cursor that waits for them, a mark for each gap it passes."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from typing import Any, cast
from unittest.mock import ANY

import pytest
import structlog
from redis.asyncio import Redis

from tests.bench.bench import CATCHUP_SECONDS, KEYS, SETTLE_SECONDS, Bench
from tests.bench.subscriptions import MESSAGE, ROOM, SubscriptionRun, running_subscription
from tests.bench.waiting import (
    LONGEST_SECONDS,
    Moments,
    wait_until_redis_fails,
    wait_until_true,
)
from tests.source.scripted import SUBSCRIBE_KEY, wait_until
from tests.store.random_channel import RandomChannel
from worker.applying.rollback import RollbackRecovery
from worker.domain.entry import Outcome
from worker.domain.position import Cursor
from worker.emulator.stream import Cursor as EmulatorCursor
from worker.emulator.subscription import Subscription as EmulatorSubscription
from worker.errors import ExitCode, RedisUnavailableError
from worker.live.assignment import Assignment
from worker.live.resume_point import ResumePoint
from worker.live.subscriptions import Subscriptions
from worker.service import parts, worker
from worker.service.lifecycle import Service
from worker.settings import Settings
from worker.source import refusals
from worker.source.names import Names
from worker.store.connection import recovery_client
from worker.store.keys import digest
from worker.store.rollback_detector import RollbackDetector
from worker.store.tables import Tables


def react(bench: Bench, count: int, channel: str = "room", start: int = 0) -> None:
    """Let so many users react."""
    for number in range(start, start + count):
        bench.emulator.state.add(channel, MESSAGE, "reaction", "👍", f"user{number}")


async def test_live_events_become_tallies(bench: Bench) -> None:
    """Additions and removals count when they arrive."""
    async with running_subscription(bench) as it:
        react(bench, 5)
        await it.settled()
        [first, *_] = bench.emulator.state.actions("room")
        bench.emulator.state.remove("room", MESSAGE, first.timetoken, first.identity.uuid)
        await it.settled()

    assert await bench.reader.get("room", MESSAGE) == {"reaction": {"👍": 4}}


async def test_a_first_start_is_owed(bench: Bench) -> None:
    """The mark and the backfill are written before the cursor."""
    async with running_subscription(bench) as it:
        await wait_until(lambda: bool(it.repairs))
        assert await it.owed("room") == {"first_start"}
        await wait_until_true(it.cursor, it.repairs[0][1])
        assert it.repairs[0][0] == {"room"}
    assert await bench.tables.channels.all() == {"room"}


async def test_a_restart_resumes_at_the_cursor(bench: Bench) -> None:
    """It catches up with what happened meanwhile, and marks nothing."""
    async with running_subscription(bench) as it:
        react(bench, 3)
        await it.settled()
    await bench.redis.delete(KEYS.owed("room"))
    react(bench, 60, start=3)

    async with running_subscription(bench) as it:
        await it.settled()
        assert it.repairs == []
        assert await it.owed("room") == set()


async def test_the_cursor_waits_for_its_events(bench: Bench) -> None:
    """While Redis takes no events, it stays. After a kill the events are read again."""
    async with running_subscription(bench) as it:
        before = await it.cursor()
        await bench.redis.config_set("maxmemory", "1")
        try:
            react(bench, 3)
            await wait_until_redis_fails(times=3)
            assert await it.cursor() == before
        finally:
            await bench.redis.config_set("maxmemory", "0")
        await it.settled()

        async def has_moved() -> bool:
            return await it.cursor() != before

        await wait_until_true(has_moved, expected=True)


async def test_a_stop_applies_polled_answers(bench: Bench, held: asyncio.Event) -> None:
    """All of them are counted, and the cursor covers them."""
    async with running_subscription(bench) as it:
        for start in (0, 60):
            asked = bench.emulator.requests["subscribe"]
            react(bench, 60, start=start)
            await wait_until_asked_again(bench, asked)  # after a large answer it polls again
        it.subscription.stop()
        held.set()
    cursor = await it.cursor()

    assert await bench.counts() == bench.emulator.truth()
    assert cursor
    resume_point = EmulatorCursor(int(cursor.timetoken), cursor.region)
    assert bench.emulator.state.poll(EmulatorSubscription(("room",)), resume_point).messages == ()


async def test_an_old_cursor_is_a_gap(bench: Bench) -> None:
    """PubNub's cache does not reach back that far, and does not say so."""
    async with running_subscription(bench) as it:
        react(bench, 1)
        await it.settled()
    await bench.redis.delete(KEYS.owed("room"))
    saved = KEYS.cursor(it.subscription.id)
    await cast("Any", bench.redis).hincrby(saved, "saved_at", -round(CATCHUP_SECONDS + 1))
    react(bench, 1, start=1)

    async with running_subscription(bench) as again:
        await wait_until(lambda: bool(again.repairs))
        assert await again.owed("room") == {"stale_cursor"}


async def test_a_long_silence_is_a_gap(bench: Bench) -> None:
    """PubNub was away for longer than its cache reaches back."""
    async with running_subscription(bench) as it:
        react(bench, 1)
        await it.settled()
        await bench.redis.delete(KEYS.owed("room"))
        it.repairs.clear()
        bench.clock.now += CATCHUP_SECONDS + 1
        react(bench, 1, start=1)
        await it.settled()
        assert await it.owed("room") == {"stale_cursor"}
        assert [channels for channels, _ in it.repairs] == [{"room"}]


async def test_a_full_answer_is_a_gap(bench: Bench) -> None:
    """PubNub may have dropped what exceeds a hundred messages."""
    async with running_subscription(bench) as it:
        react(bench, 1)
        await it.settled()
    await bench.redis.delete(KEYS.owed("room"))
    react(bench, 130, start=1)

    async with running_subscription(bench) as again:
        await wait_until(lambda: bool(again.repairs))
        assert await again.owed("room") == {"overflow"}
    # PubNub's cache has dropped the oldest thirty.
    assert await bench.reader.get("room", MESSAGE) == {"reaction": {"👍": 101}}


async def test_a_refused_channel_leaves_others_live(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is marked when it is refused, and again when it is back."""
    monkeypatch.setattr(refusals, "REFUSED_SECONDS", 0.1)
    bench.emulator.state.refuse(["hall"])
    async with running_subscription(bench, Names(("hall", "room"))) as it:
        react(bench, 3)
        await wait_until_true(lambda: it.owed("hall"), {"first_start", "forbidden"})
        assert await it.owed("room") == {"first_start"}
        await wait_until_true(lambda: bench.reader.get("room", MESSAGE), {"reaction": {"👍": 3}})

        first = (await bench.tables.pending.read("hall"))["forbidden"]
        it.repairs.clear()
        bench.emulator.state.refuse([])
        react(bench, 2, "hall")
        await wait_until(lambda: bool(it.repairs))
        await it.settled()
        assert (await bench.tables.pending.read("hall"))["forbidden"] > first
        assert [channels for channels, _ in it.repairs] == [{"hall"}]


async def test_a_channel_of_a_wildcard_is_owed(bench: Bench) -> None:
    """Its past was never followed. It is logged once."""
    async with running_subscription(bench, Names(wildcards=("news.*",))) as it:
        react(bench, 2, "news.sport")
        await it.settled()
        react(bench, 2, "news.sport", start=2)
        await it.settled()

        assert await it.owed("news.sport") == {"new_channel"}
        assert [channels for channels, _ in it.repairs if channels] == [{"news.sport"}]


async def test_channels_of_a_group_are_owed(bench: Bench) -> None:
    """A message that matches twice counts once."""
    bench.emulator.state.groups.add("friends", ["room", "hall"])
    async with running_subscription(bench, Names(("room",), groups=("friends",))) as it:
        await wait_until_true(lambda: it.owed("hall"), {"first_start"})
        await wait_until_true(lambda: it.owed("room"), {"first_start"})
        react(bench, 3, "room")
        react(bench, 2, "hall")
        await it.settled()


async def test_a_stale_answer_is_read_again(bench: Bench) -> None:
    """The machine was suspended. The next poll begins at the saved cursor."""
    with structlog.testing.capture_logs() as entries:
        async with running_subscription(bench) as it:
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
            await it.settled()
    assert [entry["event"] for entry in entries].count("subscription_starts") == 2


async def test_a_stop_ends_a_start_at_any_step(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step of a start is tried."""
    moments, has_started = Moments(bench, monkeypatch), False
    for number in count(-1):
        await bench.redis.flushall()
        it = SubscriptionRun(bench, Assignment(ROOM))
        moments.await_one(number, it.subscription.stop)
        running = asyncio.create_task(it.subscription.run())
        if number < 0:
            it.subscription.stop()  # before its first step
        while not (running.done() or has_started):
            await asyncio.sleep(0.001)
            has_started = bench.emulator.waiting > 0 and await it.has_begun()
        it.subscription.stop()
        await asyncio.wait_for(running, LONGEST_SECONDS)
        if has_started:
            break
    assert number > 10


async def test_a_lost_answer_keeps_a_channel_new(bench: Bench) -> None:
    """Redis added the channel, but the connection broke. A repeated call finds it new again."""
    bench.emulator.state.add("news.sport", MESSAGE, "reaction", "👍", "old", published=False)
    call, lost = bench.retry.call, iter([True])

    async def call_unheard(attempt: Callable[[], Awaitable[Any]]) -> Any:
        async def unheard() -> Any:
            result = await attempt()
            redis = cast("Any", bench.redis)
            if await redis.sismember("tally:channels", "news.sport") and next(lost, None):
                raise RedisUnavailableError("the answer was lost")
            return result

        return await call(unheard)

    bench.retry.call = call_unheard  # type: ignore[method-assign, assignment]
    async with running_subscription(bench, Names(wildcards=("news.*",))) as it:
        react(bench, 1, "news.sport")
        await wait_until_true(lambda: it.owed("news.sport"), {"new_channel"})
        assert {"news.sport"} in [channels for channels, _ in it.repairs]


async def test_a_cursor_keeps_its_age(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine sleeps between the events and their cursor. So the gap shows."""
    async with running_subscription(bench) as it:
        before = await it.cursor()
        apply = bench.applier.apply

        async def apply_and_fall_asleep(*args: Any) -> Counter[Outcome]:
            applied = await apply(*args)
            monkeypatch.undo()
            bench.clock.now += 2 * CATCHUP_SECONDS
            assert await it.cursor() == before
            return applied

        monkeypatch.setattr(bench.applier, "apply", apply_and_fall_asleep)
        react(bench, 3)

        async def has_moved() -> bool:
            return await it.cursor() != before

        await wait_until_true(has_moved, expected=True)
        saved = await bench.tables.cursors.read(it.subscription.id)
        assert saved
        assert saved.age_seconds > CATCHUP_SECONDS
        await bench.redis.delete(KEYS.owed("room"))

        react(bench, 1, start=3)
        await wait_until_true(lambda: it.owed("room"), {"stale_cursor"})
        await it.settled()


@pytest.fixture
def held(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Let every group wait until this is set."""
    apply, release = bench.applier.apply, asyncio.Event()

    async def hold(*args: Any) -> Counter[Outcome]:
        await release.wait()
        return await apply(*args)

    monkeypatch.setattr(bench.applier, "apply", hold)
    return release


async def test_waiting_answers_are_committed_together(bench: Bench, held: asyncio.Event) -> None:
    """The last one's cursor is saved once, and every new channel is marked."""
    async with running_subscription(bench, Names(wildcards=("news.*",))) as it:
        before = await bench.tables.cursors.read(it.subscription.id)
        for number, channel in enumerate(("news.a", "news.b", "news.c")):
            asked = bench.emulator.requests["subscribe"]
            react(bench, 60, channel, start=60 * number)
            await wait_until_asked_again(bench, asked)
        assert await it.cursor() == (before and before.cursor)
        held.set()
        await it.settled()
        for channel in ("news.a", "news.b", "news.c"):
            await wait_until_true(partial(it.owed, channel), {"new_channel"})

        async def saves() -> int:
            saved = await bench.tables.cursors.read(it.subscription.id)
            return saved.saves if saved else 0

        assert before
        await wait_until_true(saves, before.saves + 2)


async def test_a_small_answer_is_applied_before_the_next_poll(
    bench: Bench, held: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What happens meanwhile comes in one answer."""
    monkeypatch.setattr("worker.live.polling.APPLY_WAIT_SECONDS", 60)
    async with running_subscription(bench) as it:
        react(bench, 1)
        await wait_until(lambda: bench.emulator.waiting == 0)
        asked = bench.emulator.requests["subscribe"]
        for number in range(1, 10):
            react(bench, 1, start=number)
            await bench.client.time()  # a poll that began meanwhile arrives before this answer
        assert bench.emulator.requests["subscribe"] == asked
        held.set()
        await it.settled()
        assert bench.emulator.requests["subscribe"] <= asked + 2


@pytest.mark.parametrize("went_back", [True, False])
async def test_an_idle_subscription_notices_a_rollback(bench: Bench, *, went_back: bool) -> None:
    """No event is needed. Without a rollback it goes on."""
    async with running_subscription(bench) as it:
        with structlog.testing.capture_logs() as entries:
            if went_back:
                bench.applier.rollback_detector.accept(None)
            it.subscription.reread()
            await wait_until(lambda: it.subscription.polling.queued == 0)
            await wait_until(
                lambda: (
                    any(entry["event"] == "subscription_starts" for entry in entries)
                    or not went_back
                )
            )
            react(bench, 1)
            await it.settled()
        began = [entry for entry in entries if entry["event"] == "subscription_starts"]
        assert len(began) == int(went_back)
        assert not [entry for entry in entries if entry["event"] == "gap"]


@pytest.mark.parametrize("gap", ["first_start", "stale_cursor", "overflow", "new_channel"])
async def test_a_mark_is_written_before_the_cursor(bench: Bench, gap: str) -> None:
    """Redis's MONITOR shows the order."""
    names = Names(("room",), wildcards=("news.*",))
    if gap != "first_start":
        async with running_subscription(bench, names) as first:
            saved = KEYS.cursor(first.subscription.id)
        await bench.redis.delete(KEYS.owed("room"))
        if gap == "stale_cursor":
            await cast("Any", bench.redis).hincrby(saved, "saved_at", -round(CATCHUP_SECONDS + 1))
        react(
            bench, 130 if gap == "overflow" else 1, "news.sport" if gap == "new_channel" else "room"
        )

    told: list[str] = []
    async with bench.redis.monitor() as monitor:
        listening = asyncio.create_task(listen(monitor, told))
        async with running_subscription(bench, names):
            await wait_until(
                lambda: any("tally:cursor:" in line and "HSET" in line for line in told)
            )
        listening.cancel()
        await asyncio.wait([listening])

    channel = "news.sport" if gap == "new_channel" else "room"
    marked = [
        n
        for n, line in enumerate(told)
        if KEYS.owed(channel) in line and "HSET" in line and gap in line
    ]
    passed = [n for n, line in enumerate(told) if "tally:cursor:" in line and "HSET" in line]
    assert marked[0] < passed[0]


async def listen(monitor: Any, told: list[str]) -> None:
    """Note each command that reaches Redis."""
    async for command in monitor.listen():
        told.append(command["command"])  # noqa: PERF401 - it is read while it grows


@pytest.mark.parametrize(
    "faults", [{"duplicate": 0.5}, {"reorder": 1.0}, {"late": 0.5}, {"ahead": 0.5}, {"rewind": 0.3}]
)
async def test_faulty_delivery_changes_no_count(bench: Bench, faults: dict[str, float]) -> None:
    """Events come twice, shuffled, late, ahead of the cursor and behind it."""
    bench.emulator.state.faults.replace(faults)
    async with running_subscription(bench) as it:
        rounds, struck = count(), bench.emulator.state.faults.struck
        while (round := next(rounds)) < 10 or struck.total() <= 5:
            asked = bench.emulator.requests["subscribe"]
            react(bench, 8, start=8 * round)
            for action in bench.emulator.state.actions("room")[::3]:
                bench.emulator.state.remove("room", MESSAGE, action.timetoken, action.identity.uuid)
            await wait_until_asked_again(bench, asked)
            await wait_until_read(bench)
        await it.settled()


FOUR = Names(("attic", "hall", "room", "yard"))


async def wait_until_asked_again(bench: Bench, asked: int) -> None:
    """Wait until the worker has polled more often than that.

    Then it has read the answers before.
    """
    await wait_until(lambda: bench.emulator.requests["subscribe"] > asked)


async def flood(bench: Bench, names: Names, number: int, per_channel: int = 25) -> None:
    """Let so much happen at once in each channel, and wait until it is read."""
    before = bench.emulator.requests["subscribe"]
    for channel in names.channels:
        react(bench, per_channel, channel, start=number * per_channel)
    await wait_until_asked_again(bench, before)


async def test_full_answers_halve_a_subscription(bench: Bench) -> None:
    """Three in a row do. Its halves begin at its cursor, and all channels are owed."""
    async with running_subscription(bench, FOUR) as it:
        for number in range(2):
            await flood(bench, FOUR, number)
            await it.settled()
        assert not it.subscription.successors
        await flood(bench, FOUR, 2)
        await wait_until(lambda: bool(it.subscription.successors))

    assert it.subscription.successors == (
        Assignment(Names(("attic", "hall"))),
        Assignment(Names(("room", "yard"))),
    )
    assert it.subscription.resume_point
    assert it.subscription.resume_point.cursor == await it.cursor()
    assert await bench.counts() == bench.emulator.truth()
    debts = await bench.tables.pending.read_all(FOUR.channels)
    assert all("overflow" in debts[channel] for channel in FOUR.channels)


async def test_a_burst_halves_no_subscription(bench: Bench) -> None:
    """The full answers are not in a row."""
    async with running_subscription(bench, FOUR) as it:
        for number in range(2):
            await flood(bench, FOUR, number)
            await it.settled()
        react(bench, 1, "cellar")
        react(bench, 1, "room", start=1000)
        await wait_until_true(lambda: count_of(bench, "room"), 51)
        for number in range(2, 4):
            await flood(bench, FOUR, number)
            await wait_until_true(lambda: count_of(bench, "yard"), 25 * number + 25)

        assert it.subscription.successors is None


async def count_of(bench: Bench, channel: str) -> int:
    """Return how many users have reacted, according to Redis."""
    return (await bench.reader.get(channel, MESSAGE)).get("reaction", {}).get("👍", 0)


async def test_a_single_name_is_not_halved(bench: Bench) -> None:
    """It is followed further, and owed."""
    async with running_subscription(bench) as it:
        for number in range(5):
            await flood(bench, ROOM, number, per_channel=100)
            await it.settled()

        assert it.subscription.successors is None
        assert "overflow" in await it.owed("room")


@asynccontextmanager
async def serving(
    bench: Bench, *assignments: Assignment[ResumePoint], size: int = 50
) -> AsyncIterator[Subscriptions]:
    """Follow subscriptions as a worker does, with their successors, until the block ends."""
    all_of_them = Subscriptions(
        lambda each: SubscriptionRun(bench, each).subscription, assignments, size
    )
    service = Service(all_of_them, [], LONGEST_SECONDS)
    running = asyncio.create_task(service.serve())
    try:
        await wait_until(lambda: bench.emulator.waiting == len(assignments))
        yield all_of_them
    finally:
        service.stop()
        assert await asyncio.wait_for(running, LONGEST_SECONDS) is ExitCode.DONE


async def resumed(bench: Bench, names: Names, size: int = 50) -> list[Assignment[ResumePoint]]:
    """Return the assignments of a worker that starts now with these names."""
    settings = Settings.model_validate(
        {
            "PUBNUB_SUBSCRIBE_KEY": SUBSCRIBE_KEY,
            "PUBNUB_ORIGIN": bench.emulator.origin,
            "PUBNUB_TLS": False,
            "REDIS_URL": url_of(bench.redis),
        }
    )
    async with parts.open_parts(settings) as opened:
        return await worker.resume(opened, names, size)


def url_of(redis: Redis) -> str:
    """Return the address of a client's Redis."""
    kwargs = redis.connection_pool.connection_kwargs
    return f"redis://{kwargs['host']}:{kwargs['port']}"


async def test_halves_miss_nothing(bench: Bench) -> None:
    """Neither at the change, nor between two workers."""
    assert await resumed(bench, FOUR) == [Assignment(FOUR)]
    async with serving(bench, Assignment(FOUR)):
        for number in range(3):
            await flood(bench, FOUR, number)
        await wait_until(lambda: bench.emulator.waiting == 2)
        await flood(bench, FOUR, 3)
        await wait_until_true(bench.counts, bench.emulator.truth())
    for channel in FOUR.channels:
        react(bench, 25, channel, start=100)

    halves = await resumed(bench, FOUR)

    assert halves == list(map(Assignment, FOUR.halves()))
    await bench.redis.delete(*map(KEYS.owed, FOUR.channels))
    async with serving(bench, *halves):
        await wait_until_true(bench.counts, bench.emulator.truth())
        assert await bench.tables.pending.read_all(FOUR.channels) == {}


async def test_names_resume_at_their_newest_cursor(bench: Bench) -> None:
    """It may be the cursor of the whole list, of halves, or of parts of halves."""
    (first, second), cursor = FOUR.halves(), Cursor("17600000000000000", 1)

    async def save(names: Names, age_seconds: int = 0) -> None:
        await bench.tables.cursors.register(digest(names.all), names.all)
        await bench.tables.cursors.save(digest(names.all), cursor, age=lambda: age_seconds)

    async def left_now() -> list[Names]:
        return [assignment.names for assignment in await resumed(bench, FOUR)]

    await save(first, 900)
    await save(second, 910)
    assert await left_now() == [first, second]
    await save(FOUR, 60)
    assert await left_now() == [FOUR]  # whole again
    await save(first, 30)
    assert await resumed(bench, FOUR) == [
        Assignment(first),
        Assignment(second, ANY),
    ]  # the second half resumes where the whole was
    await save(second)
    assert await resumed(bench, FOUR) == [Assignment(second), Assignment(first)]
    for quarter in second.halves():
        await save(quarter)  # as new as the half, which was halved just before the kill
    assert await left_now() == [*second.halves(), first]
    assert await resumed(bench, ROOM) == [Assignment(ROOM, ANY)]  # the other names are gone


async def test_an_unregistered_cursor_is_found(bench: Bench) -> None:
    """It is the cursor of the very same names."""
    await bench.tables.cursors.save(digest(FOUR.all), Cursor("17600000000000000", 1))

    async with serving(bench, *await resumed(bench, FOUR)) as it:
        assert it.current[0].resume_point
        assert it.current[0].resume_point.cursor == Cursor("17600000000000000", 1)


@pytest.fixture
async def recovery(bench: Bench) -> AsyncIterator[RollbackRecovery]:
    """Lay the parts out with a recovery, as a worker has it."""
    rollback_detector = RollbackDetector()
    async with recovery_client(bench.redis) as whoever_answers:
        recovery = RollbackRecovery(rollback_detector, Tables(whoever_answers, KEYS), ["room"])
        bench.lay_out(rollback_detector, recovery)
        yield recovery


@pytest.mark.parametrize("forgotten", ["the cursor", "its newest saves", "everything since"])
async def test_a_rollback_marks_every_channel(
    bench: Bench, recovery: RollbackRecovery, forgotten: str
) -> None:
    """Reading goes on from what Redis still knows, and ends exact."""
    heard: list[set[str]] = []
    recovery.add_listener(lambda channels: heard.append(set(channels)))
    story = RandomChannel(bench.redis)
    async with running_subscription(bench) as it:
        await bench.tables.channels.add(["attic"])
        react(bench, 3)
        await it.settled()
        await wait_until_true(lambda: bench.tables.channels.unknown(["room"]), frozenset())
        key = KEYS.cursor(it.subscription.id)
        await bench.redis.delete(KEYS.owed("room"))
        before, copy = await cast("Any", bench.redis).hgetall(key), await story.copy()
        bench.emulator.state.remove(
            "room", MESSAGE, bench.emulator.state.actions("room")[0].timetoken, "user0"
        )
        react(bench, 3, start=3)
        await it.settled()
        await wait_until_saved(bench, it, before)

        match forgotten:
            case "the cursor":
                await bench.redis.delete(key)
            case "its newest saves":
                await cast("Any", bench.redis).hset(key, mapping=before)
            case _:
                await story.go_back(copy)
        react(bench, 3, start=6)

        await wait_until(lambda: bool(heard))
        assert "redis_went_back" in await it.owed("room")
        assert await it.owed("attic") == {"redis_went_back"}
        await it.settled()
        await wait_until_true(it.has_begun, expected=True)
        await wait_until_read(bench)
        react(bench, 1, start=9)
        await it.settled()
        assert await it.owed("room") - {"redis_went_back"} == (
            {"first_start"} if forgotten == "the cursor" else set()
        )
        assert heard == [{"room", "attic"}]
        assert bench.applier.rollback_detector.generation == 1
        assert not bench.applier.rollback_detector.is_suspect


async def wait_until_saved(bench: Bench, it: SubscriptionRun, before: dict[str, str]) -> None:
    """Wait until the cursor was saved again."""

    async def is_saved() -> bool:
        saved = await bench.tables.cursors.read(it.subscription.id)
        return saved is not None and saved.saves > int(before["saves"])

    await wait_until_true(is_saved, expected=True)


async def wait_until_read(bench: Bench) -> None:
    """Wait until the worker polls again, so that no answer grows to a hundred."""
    await wait_until(lambda: bench.emulator.waiting > 0)
