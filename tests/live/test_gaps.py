"""What may have been missed is marked, before the cursor passes it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from tests.bench.bench import CATCHUP_SECONDS, KEYS, Bench
from tests.bench.subscriptions import MESSAGE, react, running_subscription
from tests.bench.waiting import wait_until_true
from tests.waiting import wait_until
from worker.applying.forgetting import forget
from worker.domain.position import Range
from worker.errors import RedisUnavailableError
from worker.source import refusals
from worker.source.names import Names


async def test_a_first_start_is_owed(bench: Bench) -> None:
    """The mark and the backfill are written before the cursor."""
    async with running_subscription(bench) as run:
        await wait_until(lambda: bool(run.repairs))
        assert await run.owed("room") == {"first_start"}
        stretch = run.repairs[0][1]
        await wait_until(lambda: run.subscription.resume_point is not None)
        cursor = await run.cursor()
        assert cursor
        assert stretch == Range(None, cursor.timetoken)
        assert run.repairs[0][0] == {"room"}
    assert await bench.tables.channels.all() == {"room"}


@pytest.mark.parametrize("seconds", [-round(CATCHUP_SECONDS + 1), 100])
async def test_an_old_cursor_is_a_gap(bench: Bench, seconds: int) -> None:
    """PubNub's cache does not reach back that far, and does not say so.

    So is a cursor of the future: nobody knows its age.
    """
    async with running_subscription(bench) as run:
        react(bench, 1)
        await run.settled()
    await bench.redis.delete(KEYS.owed("room"))
    saved = KEYS.cursor(run.subscription.id)
    await cast("Any", bench.redis).hincrby(saved, "saved_at", seconds)
    react(bench, 1, start=1)

    async with running_subscription(bench) as again:
        await wait_until(lambda: bool(again.repairs))
        assert await again.owed("room") == {"stale_cursor"}


async def test_a_long_silence_is_a_gap(bench: Bench) -> None:
    """PubNub was away for longer than its cache reaches back."""
    async with running_subscription(bench) as run:
        react(bench, 1)
        await run.settled()
        await bench.redis.delete(KEYS.owed("room"))
        run.repairs.clear()
        bench.clock.now += CATCHUP_SECONDS + 1
        react(bench, 1, start=1)
        await run.settled()
        assert await run.owed("room") == {"stale_cursor"}
        assert [channels for channels, _ in run.repairs] == [{"room"}]


async def test_a_full_answer_is_a_gap(bench: Bench) -> None:
    """PubNub may have dropped what exceeds a hundred messages."""
    async with running_subscription(bench) as run:
        react(bench, 1)
        await run.settled()
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
    async with running_subscription(bench, Names(("hall", "room"))) as run:
        react(bench, 3)
        await wait_until_true(lambda: run.owed("hall"), {"first_start", "forbidden"})
        assert await run.owed("room") == {"first_start"}
        await wait_until_true(lambda: bench.reader.get("room", MESSAGE), {"reaction": {"👍": 3}})

        first = (await bench.tables.pending.read("hall"))["forbidden"]
        run.repairs.clear()
        bench.emulator.state.refuse([])
        react(bench, 2, "hall")
        await wait_until(lambda: bool(run.repairs))
        await run.settled()
        assert (await bench.tables.pending.read("hall"))["forbidden"] > first
        assert [channels for channels, _ in run.repairs] == [{"hall"}]


async def test_a_channel_of_a_wildcard_is_owed(bench: Bench) -> None:
    """Its past was never followed. It is logged once."""
    async with running_subscription(bench, Names(wildcards=("news.*",))) as run:
        react(bench, 2, "news.sport")
        await run.settled()
        react(bench, 2, "news.sport", start=2)
        await run.settled()

        assert await run.owed("news.sport") == {"new_channel"}
        assert [channels for channels, _ in run.repairs if channels] == [{"news.sport"}]


async def test_a_forgotten_channel_is_a_new_one(bench: Bench) -> None:
    """Its subscription has seen it before. Its first event is counted, and its past is owed."""
    new: list[str] = []
    async with running_subscription(bench, Names(wildcards=("news.*",))) as run:
        react(bench, 2, "news.sport")
        await run.settled()
        await forget("news.sport", bench.tables, bench.store)
        assert await bench.counts() == {}
        bench.tables.pending.add_listener(new.extend)

        react(bench, 1, "news.sport", start=2)
        await wait_until_true(lambda: run.owed("news.sport"), {"new_channel"})

        assert await bench.tables.channels.all() == {"news.sport"}
        assert await bench.reader.get("news.sport", MESSAGE) == {"reaction": {"👍": 1}}
        await wait_until(lambda: new == ["news.sport"])


async def test_a_gap_owes_no_forgotten_channel(bench: Bench) -> None:
    """Its subscription has seen it before, and PubNub was away for too long."""
    async with running_subscription(bench, Names(wildcards=("news.*",))) as run:
        react(bench, 1, "news.sport")
        await run.settled()
        await forget("news.sport", bench.tables, bench.store)

        bench.clock.now += CATCHUP_SECONDS + 1
        react(bench, 1, "news.world")
        await wait_until_true(lambda: run.owed("news.world"), {"new_channel"})

        assert await run.owed("news.sport") == set()
        assert await bench.tables.channels.all() == {"news.world"}


async def test_a_cursor_covers_no_forgotten_channel(bench: Bench) -> None:
    """It was forgotten between two workers, the second of which has it in its settings."""
    async with running_subscription(bench) as run:
        react(bench, 2)
        await run.settled()
    await forget("room", bench.tables, bench.store)

    async with running_subscription(bench) as again:
        assert await again.owed("room") == {"new_channel"}
        cursor = await again.cursor()
        assert cursor
        assert ({"room"}, Range(None, cursor.timetoken)) in again.repairs


async def test_channels_of_a_group_are_owed(bench: Bench) -> None:
    """A message that matches twice counts once."""
    bench.emulator.state.groups.add("friends", ["room", "hall"])
    async with running_subscription(bench, Names(("room",), groups=("friends",))) as run:
        await wait_until_true(lambda: run.owed("hall"), {"first_start"})
        await wait_until_true(lambda: run.owed("room"), {"first_start"})
        react(bench, 3, "room")
        react(bench, 2, "hall")
        await run.settled()


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
    async with running_subscription(bench, Names(wildcards=("news.*",))) as run:
        react(bench, 1, "news.sport")
        await wait_until_true(lambda: run.owed("news.sport"), {"new_channel"})
        await wait_until(lambda: {"news.sport"} in [channels for channels, _ in run.repairs])


async def test_a_cursor_keeps_its_age(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine sleeps between the events and their cursor. So the gap shows.

    One call brings both, unless the channel was empty: then the cursor comes after it.
    """
    async with running_subscription(bench) as run:
        before = await run.cursor()
        apply_all = bench.store.apply_all

        async def apply_and_fall_asleep(*args: Any) -> Any:
            applied = await apply_all(*args)
            monkeypatch.undo()
            bench.clock.now += 2 * CATCHUP_SECONDS
            assert await run.cursor() == before
            return applied

        monkeypatch.setattr(bench.store, "apply_all", apply_and_fall_asleep)
        react(bench, 3)

        async def has_moved() -> bool:
            return await run.cursor() != before

        await wait_until_true(has_moved, expected=True)
        saved = await bench.tables.cursors.read(run.subscription.id)
        assert saved
        assert saved.age_seconds > CATCHUP_SECONDS
        await bench.redis.delete(KEYS.owed("room"))

        react(bench, 1, start=3)
        await wait_until_true(lambda: run.owed("room"), {"stale_cursor"})
        await run.settled()


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

    commands: list[str] = []
    async with bench.redis.monitor() as monitor:
        listening = asyncio.create_task(listen(monitor, commands))
        async with running_subscription(bench, names):
            await wait_until(
                lambda: any("tally:cursor:" in line and "HSET" in line for line in commands)
            )
        listening.cancel()
        await asyncio.wait([listening])

    channel = "news.sport" if gap == "new_channel" else "room"
    marked = [
        n
        for n, line in enumerate(commands)
        if KEYS.owed(channel) in line and "HSET" in line and gap in line
    ]
    passed = [n for n, line in enumerate(commands) if "tally:cursor:" in line and "HSET" in line]
    assert marked[0] < passed[0]


async def listen(monitor: Any, commands: list[str]) -> None:
    """Note each command that reaches Redis."""
    async for command in monitor.listen():
        commands.append(command["command"])  # noqa: PERF401 - it is read while it grows
