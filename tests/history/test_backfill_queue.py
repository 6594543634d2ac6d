"""Backfills that a running worker wants, and the sweep."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from tests.bench.bench import KEYS, Bench
from tests.bench.replaying import FIRST, at_once, backfill, seed
from tests.bench.waiting import wait_until_true
from tests.waiting import wait_until
from worker.applying.expiry import Expiry
from worker.domain.action import Added, Identity, Origin
from worker.domain.position import Cursor, from_seconds
from worker.history.backfill_queue import CONCURRENCY, BackfillQueue
from worker.store.progress import Progress
from worker.store.store import Store, Ttls

NOW = Cursor("17700000000000000", 1)


@asynccontextmanager
async def running(
    bench: Bench, take: Callable[[], Awaitable[None]] = at_once
) -> AsyncIterator[BackfillQueue]:
    """Run the queue until the block ends."""
    queue = BackfillQueue(backfill(bench, tries=None, take=take), bench.tables)
    task = asyncio.create_task(queue.run())
    try:
        yield queue
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def ended(bench: Bench, *channels: str) -> None:
    """Wait until no backfill of these channels is under way."""
    await wait_until_true(lambda: bench.tables.progress.read_all(channels), {})


async def test_requested_channels_are_backfilled(bench: Bench) -> None:
    """There are more channels than tasks."""
    channels = [f"channel{number}" for number in range(12)]
    for channel in channels:
        seed(bench, channel, 30)

    async with running(bench) as queue:
        await queue.request(channels, NOW)
        await ended(bench, *channels)
    await bench.tables.channels.add(channels)

    assert await bench.counts() == bench.emulator.truth()


async def test_a_request_survives_a_kill(bench: Bench) -> None:
    """It is in Redis when the request returns. The next worker resumes it."""
    seed(bench, "room", 30)
    await bench.tables.channels.add(["room", "hall"])
    await BackfillQueue(backfill(bench), bench.tables).request(["room"], NOW)

    async with running(bench):
        await ended(bench, "room")

    assert await bench.counts() == bench.emulator.truth()


async def test_a_request_keeps_progress_without_an_end(bench: Bench) -> None:
    """A backfill that resumes it reads newer actions, too. Other progress is replaced."""
    whole, part = (
        Progress(str(FIRST + 40), str(FIRST + 20), actions=10),
        Progress(str(FIRST + 40), "5", str(FIRST)),
    )
    await bench.tables.progress.save(whole, "room")
    await bench.tables.progress.save(part, "hall")

    await BackfillQueue(backfill(bench), bench.tables).request(["room", "hall"], NOW)

    assert await bench.tables.progress.read_all(["room", "hall"]) == {
        "room": whole,
        "hall": Progress(NOW.timetoken, NOW.timetoken),
    }


async def test_a_request_during_a_backfill_is_kept(bench: Bench) -> None:
    """A channel has one backfill at a time. The next one is saved before this one ends."""
    seed(bench, "room", 300)
    await bench.tables.channels.add(["room"])
    asked, gate = asyncio.Event(), asyncio.Event()

    async def take() -> None:
        asked.set()
        await gate.wait()

    with capture_logs() as entries:
        async with running(bench, take) as queue:
            await queue.request(["room"], NOW)
            await asked.wait()
            for _ in range(5):
                await queue.request(["room"], NOW)
            again = await cast("Any", bench.redis).hget(KEYS.progress("room"), "again")
            assert again == NOW.timetoken
            gate.set()
            await ended(bench, "room")
            await wait_until(lambda: queue.is_idle)

    assert await bench.counts() == bench.emulator.truth()
    turns = [
        entry["event"]
        for entry in entries
        if entry["event"] in {"backfill_resumes", "backfill_ends"}
    ]
    assert turns == ["backfill_resumes", "backfill_ends"] * 2
    # Two whole replays of some five requests each, and what each needs to catch up.
    assert bench.emulator.requests["actions"] <= 2 * 8


async def test_refused_channels_delay_no_other(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are more of them than tasks. They are tried again later."""
    monkeypatch.setattr("worker.history.backfill_queue.REFUSED_SECONDS", 0.05)
    refused = [f"refused{number}" for number in range(CONCURRENCY + 1)]
    for channel in [*refused, "zzz"]:
        seed(bench, channel, 30)
    bench.emulator.state.refuse(refused)

    async with running(bench) as queue:
        await queue.request([*refused, "zzz"], NOW)
        await ended(bench, "zzz")
        assert len(await bench.tables.progress.read_all(refused)) == len(refused)
        bench.emulator.state.refuse([])
        await ended(bench, *refused)

    await bench.tables.channels.add([*refused, "zzz"])
    assert await bench.counts() == bench.emulator.truth()


async def test_a_refused_channel_has_one_timer(bench: Bench) -> None:
    """New gaps of it wait for that timer. Otherwise each would add retries that never end."""
    seed(bench, "hall", 30)
    bench.emulator.state.refuse(["room"])
    with capture_logs() as entries:
        async with running(bench) as queue:
            await queue.request(["room"], NOW)
            await wait_until(lambda: bool(refusals(entries)))
            for _ in range(16):
                await queue.request(["room"], NOW)
            await queue.request(["hall"], NOW)
            await ended(bench, "hall")

    assert len(refusals(entries)) == 1


def refusals(entries: list[Any]) -> list[Any]:
    """Return the entries about refused backfills."""
    return [entry for entry in entries if entry["event"] == "backfill_refused"]


async def test_a_backfill_begun_meanwhile_keeps_the_request(bench: Bench) -> None:
    """While Redis is away, a queued channel's backfill may begin: the request comes after it."""
    table, queue = bench.tables.progress, BackfillQueue(backfill(bench), bench.tables)
    save, begun = table.save, Progress(str(FIRST + 40), str(FIRST + 20), str(FIRST))

    async def save_late(progress: Progress, *channels: str) -> None:
        await save(progress, *channels)
        queue._running.add("room")
        await save(begun, "room")

    table.save = save_late  # type: ignore[method-assign]
    await queue.request(["room"], NOW)

    fields = await cast("Any", bench.redis).hgetall(KEYS.progress("room"))
    assert (fields["next"], fields["again"]) == (begun.next, NOW.timetoken)


async def test_a_backfill_ended_meanwhile_begins_again(bench: Bench) -> None:
    """It may have passed the events before they were missed."""
    table, queue = bench.tables.progress, BackfillQueue(backfill(bench), bench.tables)
    await table.save(Progress(str(FIRST + 40), str(FIRST + 20)), "room")
    queue._running.add("room")
    save = table.save

    async def save_late(progress: Progress, *channels: str) -> None:
        await table.end("room")
        queue._running.discard("room")
        await save(progress, *channels)

    table.save = save_late  # type: ignore[method-assign]
    await queue.request(["room", "hall"], NOW)

    assert await table.read("room") == Progress(NOW.timetoken, NOW.timetoken)


async def test_the_sweep_visits_all_channels(bench: Bench) -> None:
    """Old messages are deleted, young ones stay."""
    old, young = from_seconds(time.time() - 2 * 86400), from_seconds(time.time())
    for channel in ("room", "hall"):
        events = [
            Added(Identity(channel, at, "reaction", "👍", "ana"), young, young)
            for at in (old, young)
        ]
        await bench.applier.apply(events, Origin.LIVE, bench.clock())
    await bench.tables.channels.add(["room", "hall"])
    store = Store(bench.redis, KEYS, Ttls(retention_seconds=86400))

    assert await Expiry(store, bench.tables).run_once() == 2

    assert await bench.counts() == {
        channel: {young: {"reaction": {"👍": 1}}} for channel in ("room", "hall")
    }


async def test_an_abandoned_backfill_is_taken_over(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker is gone. Progress that still moves belongs to another worker."""
    monkeypatch.setattr("worker.history.backfill_queue.ABANDONED_SECONDS", 0.05)
    seed(bench, "room", 30)
    async with running(bench):
        await bench.tables.progress.save(Progress(NOW.timetoken, NOW.timetoken), "room")
        await bench.tables.channels.add(["room"])

        await ended(bench, "room")

    assert await bench.counts() == bench.emulator.truth()
