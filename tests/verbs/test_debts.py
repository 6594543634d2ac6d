"""Repaying what channels owe: late enough, one reconcile of a channel at a time, until nothing is left."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, cast

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from tests.source.scripted import wait_until
from tests.verbs.comparing import Comparing
from tests.verbs.conftest import KEYS, SETTLE_SECONDS, Bench, backoff
from tests.verbs.test_backfill import FIRST, seed
from tests.verbs.test_ingest import wait_until_true
from worker import reconcile as reconciling
from worker.apply import Applier
from worker.comparison import Comparison
from worker.debts import AT_ONCE, Debts
from worker.domain.position import Range
from worker.domain.reconciliation import Limit
from worker.looks import Looks
from worker.patience import Terms
from worker.reconcile import Reconcile, ripe_at
from worker.source.history import History
from worker.source.live import REFUSED_SECONDS
from worker.source.pace import elapsed_clock
from worker.store.entries import Entries
from worker.store.marks import Gap

SHORT_SECONDS = 0.3


class Repaying:
    """Debts of a worker whose settle time is short, and a gate that every request for history passes."""

    def __init__(self, bench: Bench, settle_seconds: float = SHORT_SECONDS, tries: int | None = None) -> None:
        self.bench, self.marks = bench, bench.marks
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked_at: list[float] = []
        # What is held up at the gate, or on a slow machine, is no answer that has become too old.
        self.applier = Applier(bench.store, bench.marks, SETTLE_SECONDS, elapsed_clock)
        self.entries = Entries(bench.redis, KEYS)
        terms = Terms(bench.interest, backoff, self._hold, elapsed_clock, settle_seconds, tries)
        looks = Looks(History(bench.client, self._take, elapsed_clock), bench.client.time, terms)
        self.reconcile = Reconcile(
            Comparison(looks, self.entries, terms),
            self.entries,
            self.applier,
            bench.marks,
            reconciling.Terms(settle_seconds, Limit(0.2, 20), elapsed_clock),
        )
        self.debts = Debts(self.reconcile, bench.marks, self.applier, settle_seconds)

    async def _take(self) -> None:
        self.asked_at.append(asyncio.get_running_loop().time())
        await self.gate.wait()

    async def _hold(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def owe(self, *channels: str, gap: Gap = Gap.OVERFLOW) -> None:
        """Mark channels as a worker does, and say so."""
        await self.marks.owe(channels, gap)
        await self.marks.remember(channels)
        self.debts.note(channels)

    async def is_repaid(self, *channels: str) -> None:
        """Wait until these channels owe nothing."""
        await wait_until_true(lambda: self.marks.debts(channels), {})


@asynccontextmanager
async def running(repaying: Repaying) -> AsyncIterator[None]:
    """Repay until the block ends."""
    task = asyncio.create_task(repaying.debts.run())
    try:
        await is_idle(repaying)
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for timer in repaying.debts._timers.values():
            timer.cancel()


async def is_idle(repaying: Repaying) -> None:
    """Wait until it has looked at what is owed already, and no reconcile is under way."""
    await wait_until(lambda: len(cast("Any", repaying.debts._waiting)._getters) == AT_ONCE)


@dataclass
class Witness:
    """What Redis was told of a channel, by its own clock, in milliseconds."""

    rolls_called: list[float] = field(default_factory=list)
    marks_taken_back: list[float] = field(default_factory=list)


@asynccontextmanager
async def witness(bench: Bench) -> AsyncIterator[Witness]:
    """Look on while the block runs."""
    seen = Witness()
    async with bench.redis.monitor() as monitor:

        async def look_on() -> None:
            async for told in cast("Any", monitor).listen():
                if told["command"].startswith(f"ZSCAN {KEYS.messages('room')}"):
                    seen.rolls_called.append(told["time"] * 1000)
                if told["command"].startswith(f"HDEL {KEYS.owed('room')}"):
                    seen.marks_taken_back.append(told["time"] * 1000)

        looking = asyncio.create_task(look_on())
        try:
            yield seen
        finally:
            looking.cancel()
            await asyncio.wait([looking])


def of(entries: list[EventDict], event: str, channel: str = "room") -> list[EventDict]:
    """Return the log entries of that name about a channel."""
    return [entry for entry in entries if entry["event"] == event and entry["channel"] == channel]


async def test_what_is_owed_is_repaid(bench: Bench) -> None:
    """What was missed is counted, what is over no longer, and the mark is gone."""
    seed(bench, "room", 30)
    repaying = Repaying(bench)
    async with running(repaying):
        await repaying.owe("room")
        await repaying.is_repaid("room")
        assert await bench.counts() == bench.emulator.truth()

        [first, *_] = bench.emulator.state.actions("room")
        bench.emulator.state.remove(
            "room", first.identity.message_timetoken, first.timetoken, first.identity.uuid, published=False
        )
        await repaying.owe("room", gap=Gap.STALE_CURSOR)
        await repaying.is_repaid("room")

    assert await bench.counts() == bench.emulator.truth()


@pytest.mark.parametrize("heard", ["noted", "nudged", "found at the start"])
async def test_a_reconcile_begins_a_settle_time_after_the_gap(bench: Bench, heard: str) -> None:
    """No roll is called sooner: what the lists do not show yet would be taken for gone."""
    seed(bench, "room", 3)
    repaying = Repaying(bench)
    await bench.marks.remember(["room"])
    if heard == "found at the start":
        await bench.marks.owe(["room"], Gap.OVERFLOW)
    async with witness(bench) as seen, running(repaying):
        if heard != "found at the start":
            await bench.marks.owe(["room"], Gap.OVERFLOW)
        marked = (await bench.marks.owed("room"))["overflow"]
        if heard == "noted":
            repaying.debts.note(["room"])
        elif heard == "nudged":
            repaying.debts.nudge(["room"])
        await wait_until(lambda: bool(seen.marks_taken_back))

    assert min(seen.rolls_called) >= marked + SHORT_SECONDS * 1000
    assert min(seen.rolls_called) < min(seen.marks_taken_back)


async def test_a_reconcile_that_begins_too_early_repays_nothing(bench: Bench) -> None:
    """Whoever asked for it: it may have been blind to what the gap hid."""
    repaying = Repaying(bench)
    await bench.marks.owe(["room"], Gap.OVERFLOW)

    report = await repaying.reconcile.channel("room", Range())
    assert report.owed == 1
    assert set(await bench.marks.owed("room")) == {"overflow"}

    await cast("Any", bench.redis).hincrby(KEYS.owed("room"), "overflow", -round(SHORT_SECONDS * 1000))
    report = await repaying.reconcile.channel("room", Range())
    assert report.owed == 0
    assert await bench.marks.owed("room") == {}


async def test_a_reconcile_of_a_part_repays_nothing(bench: Bench) -> None:
    """The gap may lie in the other part."""
    await bench.marks.remember(["room"])
    await bench.marks.owe(["room"], Gap.OVERFLOW)
    await cast("Any", bench.redis).hincrby(KEYS.owed("room"), "overflow", -1_000_000)

    report = await Repaying(bench).reconcile.channel("room", Range("17600000000000000"))

    assert report.owed == 1


@pytest.mark.parametrize("gap", [Gap.OVERFLOW, Gap.STALE_CURSOR], ids=["of the same cause", "of another"])
async def test_a_gap_that_comes_meanwhile_is_repaid_by_another(bench: Bench, gap: Gap) -> None:
    """The one under way may have passed already what the new gap hides."""
    seed(bench, "room", 30)
    repaying = Repaying(bench)
    with capture_logs() as entries:
        async with running(repaying):
            repaying.gate.clear()
            await repaying.owe("room")
            await wait_until(lambda: bool(repaying.asked_at))
            await repaying.owe("room", gap=gap)
            newest = (await bench.marks.owed("room"))[gap]
            repaying.gate.set()
            await wait_until(lambda: len(of(entries, "reconcile_ends")) == 1)
            assert (await bench.marks.owed("room")).get(gap) == newest
            await repaying.is_repaid("room")
            await wait_until(lambda: len(of(entries, "reconcile_ends")) == 2)

    assert [entry["owed"] for entry in of(entries, "reconcile_ends")] == [1, 0]
    assert [entry["owed"] for entry in of(entries, "reconcile_starts")] == [["overflow"], [gap]]


def test_a_refusals_mark_ripens_after_the_next_try() -> None:
    """Whoever is out is marked again once a minute; other gaps are over when they are marked."""
    assert ripe_at(Gap.OVERFLOW, 5000, 60.0) == 5000 + 60_000
    assert ripe_at(Gap.FORBIDDEN, 5000, 60.0) >= 5000 + 60_000 + REFUSED_SECONDS * 1000


async def test_a_channel_that_is_out_stays_owed(bench: Bench) -> None:
    """Nobody listens until it is back, though its list may be read; it is repaid when no try has failed for long."""
    seed(bench, "room", 30)
    repaying = Repaying(bench, 0.1)
    with capture_logs() as entries:
        async with running(repaying):
            for number in range(1, 4):
                repaying.debts._noted["room"] = float("-inf")  # it has waited to be quiet for long enough
                await repaying.owe("room", gap=Gap.FORBIDDEN)  # as it is said at every try
                await grows_older(bench, Gap.FORBIDDEN, REFUSED_SECONDS)
                await wait_until(lambda number=number: len(of(entries, "reconcile_ends")) >= number)  # type: ignore[misc]
                assert set(await bench.marks.owed("room")) == {Gap.FORBIDDEN}

            await grows_older(bench, Gap.FORBIDDEN, REFUSED_SECONDS)
            repaying.debts.note(["room"])
            await repaying.is_repaid("room")

    assert await bench.counts() == bench.emulator.truth()


async def grows_older(bench: Bench, gap: Gap, seconds: float) -> None:
    """Let that much time have passed since the mark."""
    await cast("Any", bench.redis).hincrby(KEYS.owed("room"), gap, -round(seconds * 1000))


async def test_a_prune_that_meets_a_full_redis_is_tried_again(bench: Bench) -> None:
    """For longer than the settle time; the worker lives, and what was proven is proven anew."""
    it = Comparing(bench)
    actions = await it.knows(3)
    it.remove("user1", actions[1])
    bench.emulator.state.advance(2 * SETTLE_SECONDS)
    await it.owes_since_long(Gap.OVERFLOW)

    async def redis_is_full() -> None:
        await bench.redis.config_set("maxmemory", "1")

    it.meanwhile = redis_is_full
    debts = Debts(it.reconcile(), bench.marks, bench.applier, 0.1)
    task = asyncio.create_task(debts.run())
    try:
        with capture_logs() as entries:
            await wait_until(lambda: any(entry["event"] == "redis_unavailable" for entry in entries))
            bench.clock.now += 2 * SETTLE_SECONDS
            await wait_until(lambda: bool(of(entries, "reconcile_failed")))
            it.meanwhile = None
            await bench.redis.config_set("maxmemory", "0")
            await wait_until_true(lambda: bench.marks.debts(["room"]), {})
        assert not task.done()
    finally:
        await bench.redis.config_set("maxmemory", "0")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    assert await bench.counts() == bench.emulator.truth()


async def test_a_channel_is_reconciled_once_at_a_time(bench: Bench) -> None:
    """Whoever asks; other channels go on beside it."""
    channels = [f"channel{number}" for number in range(AT_ONCE - 1)]
    for channel in ("room", *channels):
        seed(bench, channel, 3)
    repaying = Repaying(bench, 0.1)
    with capture_logs() as entries:
        async with running(repaying):
            repaying.gate.clear()
            await repaying.owe("room", *channels)
            others = [asyncio.create_task(repaying.reconcile.channel("room", Range())) for _ in range(3)]
            await wait_until(lambda: all(of(entries, "reconcile_starts", channel) for channel in ("room", *channels)))
            await repaying.owe("room")
            repaying.debts.nudge(["room"])
            await wait_until(lambda: not repaying.debts._timers)
            assert len(of(entries, "reconcile_starts")) == 1
            repaying.gate.set()
            await repaying.is_repaid("room", *channels)
            await asyncio.gather(*others)

    turns = [entry["event"] for entry in entries if entry.get("channel") == "room" and "reconcile_" in entry["event"]]
    assert len(turns) >= 6
    assert turns == ["reconcile_starts", "reconcile_ends"] * (len(turns) // 2)


async def test_what_a_killed_worker_owed_is_repaid_by_the_next(bench: Bench) -> None:
    """It is in Redis; nobody needs to tell."""
    for channel in ("room", "hall"):
        seed(bench, channel, 30)
    killed = Repaying(bench)
    async with running(killed):
        killed.gate.clear()
        await killed.owe("room", "hall")
        await wait_until(lambda: bool(killed.asked_at))
    assert set(await bench.marks.debts(["room", "hall"])) == {"room", "hall"}

    following = Repaying(bench)
    async with running(following):
        await following.is_repaid("room", "hall")

    assert await bench.counts() == bench.emulator.truth()


async def test_what_is_noted_at_the_start_is_reconciled_once(bench: Bench) -> None:
    """A subscription marks and notes before the debts are read: that is one repair, not two."""
    seed(bench, "room", 30)
    repaying = Repaying(bench)
    repaying.gate.clear()
    await repaying.owe("room")
    noted_at = asyncio.get_running_loop().time()
    with capture_logs() as entries:
        async with running(repaying):
            # Whatever else was to begin then has begun.
            await wait_until(lambda: bool(repaying.asked_at))
            await wait_until(lambda: asyncio.get_running_loop().time() > noted_at + 2 * SHORT_SECONDS)
            repaying.gate.set()
            await repaying.is_repaid("room")
            await is_idle(repaying)

    assert [entry["owed"] for entry in of(entries, "reconcile_starts")] == [["overflow"]]


async def test_a_refused_channel_is_tried_again(bench: Bench) -> None:
    """Later and later, until it may be read; the others are repaid meanwhile."""
    for channel in ("room", "hall"):
        seed(bench, channel, 30)
    bench.emulator.state.refuse(["room"])
    repaying = Repaying(bench, 0.1)
    with capture_logs() as entries:
        async with running(repaying):
            await repaying.owe("room", "hall")
            await repaying.is_repaid("hall")
            await wait_until(lambda: len(of(entries, "reconcile_starts")) == 4)
            assert set(await bench.marks.owed("room")) == {"overflow"}
            bench.emulator.state.refuse([])
            await repaying.is_repaid("room")

    assert await bench.counts() == bench.emulator.truth()


async def test_what_cannot_be_repaid_is_tried_less_and_less(bench: Bench) -> None:
    """An action that Redis refuses is refused again each time; the rest is counted, and its mark stays."""
    seed(bench, "room", 30)
    await bench.redis.set(KEYS.counts("room", str(FIRST + 3)), "no hash")
    repaying = Repaying(bench, 0.1)
    async with witness(bench) as seen, running(repaying):
        await repaying.owe("room")
        await wait_until(lambda: len(seen.rolls_called) == 5)
        assert set(await bench.marks.owed("room")) == {"quarantined"}
        repaying.debts.nudge(["room"])
        await bench.redis.delete(KEYS.counts("room", str(FIRST + 3)))
        await repaying.is_repaid("room")

    # The first four: a nudge that comes while the fifth is under way has it looked at again soon.
    waits = [(after - before) / 1000 for before, after in pairwise(seen.rolls_called[:5])]
    assert len(waits) == 4
    assert all(wait >= 0.1 * 2**number for number, wait in enumerate(waits))
    assert await bench.counts() == bench.emulator.truth()


async def test_a_new_gap_is_not_kept_waiting_by_old_failures(bench: Bench) -> None:
    """It is repaid a settle time later, however long the channel has been left alone before."""
    seed(bench, "room", 30)
    bench.emulator.state.refuse(["room"])
    repaying = Repaying(bench, 0.1)
    with capture_logs() as entries:
        async with running(repaying):
            await repaying.owe("room")
            await wait_until(lambda: len(of(entries, "reconcile_failed")) == 1)
            repaying.debts._tries["room"] = 16
            await wait_until(
                lambda: len(of(entries, "reconcile_starts")) == 2 and "room" in repaying.debts._timers
            )  # it has failed again, and that is not said again
            assert len(of(entries, "reconcile_failed")) == 1
            bench.emulator.state.refuse([])
            await repaying.owe("room")
            await repaying.is_repaid("room")
