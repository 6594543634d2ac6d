"""Channels with marks are reconciled, late enough, until no mark is left."""

import asyncio
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import pytest

from reaction_tally.keys import Keys
from tests.bench.repairs import MOMENT_SECONDS, RepairBench, running
from tests.bench.virtual import (
    Log,
    Witness,
    on_virtual_time,
    owed,
    unheard,
    until,
    worker_parts,
)
from tests.simulation.world import SETTLE_SECONDS, World
from worker.applying.forgetting import forget
from worker.applying.slots import SLOTS
from worker.domain.action import Identity, Origin, Removed
from worker.domain.position import Range
from worker.reconciliation.marks import ChannelMarks, ripe_at
from worker.reconciliation.repaid_gaps import RepaidGaps
from worker.reconciliation.repair_steps import LONGEST_FAILED_SECONDS
from worker.reconciliation.report import ReconcileOptions, ReconcilePolicy, ReconcileReport
from worker.service.worker import FollowedNames, Repairs
from worker.source.names import Names
from worker.source.refusals import REFUSED_SECONDS
from worker.store.pending_repairs import GapCause
from worker.store.progress import LookProgress

KEYS = Keys()


@on_virtual_time
async def test_a_marked_channel_is_repaired(world: World) -> None:
    """Missed additions count, missed removals do not, and the mark is gone."""
    unheard(world, ["room"], 30)
    repairs = RepairBench(world)
    async with running(repairs):
        await repairs.owe("room")
        await repairs.are_repaired("room")
        assert world.differences() == []

        [first, *_] = world.state.actions("room")
        world.remove("room", first, published=False)
        await asyncio.sleep(SETTLE_SECONDS)
        await repairs.owe("room", gap=GapCause.STALE_CURSOR)
        await repairs.are_repaired("room")

    assert world.differences() == []


@on_virtual_time
async def test_a_clock_that_is_set_forward_hurries_no_look(world: World) -> None:
    """The mark seems an hour old then, but lists may not show the gap yet."""
    unheard(world, ["room"], 3)
    repairs, seen = RepairBench(world), Witness(world)
    async with running(repairs):
        began = world.loop.time()
        await repairs.mark("room")
        world.skew = 3600.0
        now = str(world.state.time.now())
        await repairs.queue.request(["room"], Range("17500000000000000", now))
        await repairs.are_repaired("room")

    assert seen.rolls_called[0] - began >= SETTLE_SECONDS


@on_virtual_time
async def test_a_repaired_channel_is_forgotten(world: World) -> None:
    """Its next look need not be delayed any more."""
    unheard(world, ["room"], 300)
    repairs = RepairBench(world, rate=0.1)
    async with running(repairs):
        await repairs.owe("room")
        await repairs.are_repaired("room")
        await asyncio.sleep(SETTLE_SECONDS)
        await repairs.owe("room")
        await repairs.are_repaired("room")
        await until(lambda: not repairs.queue._states)


@on_virtual_time
async def test_a_second_look_may_take_longer_than_its_answers_may_wait(world: World) -> None:
    """Tombstones bar listed actions on five pages. A page takes a third of a settle time.

    What is present is looked at once more, page by page, and applied at once.
    """
    unheard(world, ["room"], 500)
    repairs, log = RepairBench(world), Log()
    async with running(repairs):
        await repairs.owe("room")
        await repairs.are_repaired("room")
        for action in world.state.actions("room")[50::100]:
            identity, at = Identity("room", *action.identity), str(action.timetoken)
            barred = Removed(identity, at, at)
            await repairs.applier.apply([barred], Origin.LIVE, world.loop.time())

        repairs.seconds_a_request = SETTLE_SECONDS / 3
        await repairs.owe("room")
        await until(lambda: not world.differences())

    assert not log.of("reconcile_failed")


@pytest.mark.parametrize("trigger", ["noted", "nudged", "found at the start"])
@on_virtual_time
async def test_a_reconcile_begins_a_settle_time_after_the_gap(world: World, trigger: str) -> None:
    """Before that the lists do not show everything. It does not begin much later either."""
    unheard(world, ["room"], 3)
    repairs, seen = RepairBench(world), Witness(world)
    if trigger == "found at the start":
        await repairs.mark("room")
    async with running(repairs):
        if trigger != "found at the start":
            await repairs.mark("room")
        marked = (await repairs.tables.pending.read("room"))["overflow"] / 1000
        if trigger == "noted":
            repairs.queue.note(["room"])
        elif trigger == "nudged":
            repairs.queue.nudge(["room"])
        await until(lambda: bool(seen.marks_taken_back))

    assert (
        marked + SETTLE_SECONDS <= min(seen.rolls_called) < marked + SETTLE_SECONDS + MOMENT_SECONDS
    )
    assert min(seen.rolls_called) < min(seen.marks_taken_back)


@pytest.mark.parametrize(
    "gap", [GapCause.OVERFLOW, GapCause.STALE_CURSOR], ids=["of the same cause", "of another"]
)
@on_virtual_time
async def test_a_gap_during_a_reconcile_gets_its_own(world: World, gap: GapCause) -> None:
    """The reconcile under way may have passed what the new gap hides."""
    unheard(world, ["room"], 30)
    repairs, log = RepairBench(world), Log()
    async with running(repairs):
        repairs.gate.clear()
        await repairs.owe("room")
        await until(lambda: repairs.asked > 0)
        await repairs.owe("room", gap=gap)
        newest = (await repairs.tables.pending.read("room"))[gap]
        await asyncio.sleep(SETTLE_SECONDS / 2)
        repairs.gate.set()
        await until(lambda: len(log.of("reconcile_ends")) == 1)
        assert (await repairs.tables.pending.read("room")).get(gap) == newest
        await repairs.are_repaired("room")
        await until(lambda: len(log.of("reconcile_ends")) == 2)

    assert [entry["owed"] for entry in log.of("reconcile_ends")] == [1, 0]
    assert [entry["owed"] for entry in log.of("reconcile_starts")] == [["overflow"], [gap]]
    due = newest / 1000 + SETTLE_SECONDS
    assert due <= log.of("reconcile_starts")[1]["at"] < due + MOMENT_SECONDS


@pytest.mark.parametrize("step", [-1200.0, -7200.0])
@pytest.mark.parametrize("is_asleep", [False, True])
@on_virtual_time
async def test_a_repair_does_not_wait_as_long_as_the_clock_stepped_back(
    world: World, step: float, is_asleep: bool
) -> None:
    """Its mark lies in the future. It is repaired all the same, a settle time later."""
    unheard(world, ["room"], 3)
    repairs, seen = RepairBench(world), Witness(world)
    async with running(repairs):
        await (repairs.owe("room") if is_asleep else repairs.mark("room"))
        await asyncio.sleep(MOMENT_SECONDS)
        world.step_clock(step)
        stepped = world.loop.time()
        repairs.queue.nudge(["room"])
        await until(lambda: bool(seen.marks_taken_back))

    assert world.loop.time() < stepped + 4 * SETTLE_SECONDS
    assert world.differences() == []


@on_virtual_time
async def test_what_a_person_forces_leaves_no_doubt(world: World) -> None:
    """The refusal was a moment ago. The worker would look again a day later."""
    unheard(world, ["room"], 3)
    repairs = RepairBench(world)
    await repairs.mark("room", gap=GapCause.UNPROVEN)

    await repairs.reconcile.channel("room", Range(), ReconcileOptions(force=True))

    assert not owed(world, "room")
    assert world.differences() == []


@on_virtual_time
async def test_a_look_of_the_future_is_begun_anew(world: World) -> None:
    """The clock stepped back after a look was interrupted. A gap came later than the look."""
    unheard(world, ["room"], 3)
    repairs = RepairBench(world)
    began = await repairs.tables.server.now()
    await repairs.tables.progress.save_look(LookProgress(began, next="5"), "room")
    world.step_clock(-7200)
    await repairs.mark("room")

    await repairs.reconcile.channel("room", Range())

    assert owed(world, "room")
    assert world.differences() == []


def test_a_forbidden_mark_ripens_later() -> None:
    """It is renewed once a minute while PubNub refuses. Other marks are not renewed."""
    assert ripe_at(GapCause.OVERFLOW, 5000, 60.0) == 5000 + 60_000
    assert ripe_at(GapCause.FORBIDDEN, 5000, 60.0) >= 5000 + 60_000 + REFUSED_SECONDS * 1000


@on_virtual_time
async def test_a_refused_channel_stays_owed(world: World) -> None:
    """Its list may be readable, but its events are missed.

    The mark goes when no poll has been refused for a while.
    """
    unheard(world, ["room"], 30)
    repairs, log = RepairBench(world), Log()
    async with running(repairs):
        for _ in range(40):
            await repairs.owe("room", gap=GapCause.FORBIDDEN)  # as at every poll that is refused
            await asyncio.sleep(REFUSED_SECONDS)
            assert owed(world, "room") == {"room": {GapCause.FORBIDDEN}}
        assert len(log.of("reconcile_ends")) > 1  # the gaps have kept coming for too long

        await repairs.are_repaired("room")

    assert world.differences() == []


@on_virtual_time
async def test_a_prune_waits_for_a_full_redis(world: World) -> None:
    """Redis is full for longer than the settle time. What is absent stays absent."""
    unheard(world, ["room"], 3)
    repairs, log = RepairBench(world), Log()
    await repairs.tables.channels.add(["room"])
    await repairs.reconcile.channel("room", Range())
    [_, gone, _] = world.state.actions("room")
    world.remove("room", gone, published=False)
    await asyncio.sleep(SETTLE_SECONDS)
    async with running(repairs):
        await repairs.owe("room")
        before = repairs.asked
        await until(lambda: repairs.asked >= before + 2)  # the page, and the end
        await asyncio.sleep(MOMENT_SECONDS)  # it waits for its second pass
        world.server.is_full = True
        await until(lambda: any(entry["event"] == "redis_unavailable" for entry in log))
        await asyncio.sleep(2 * SETTLE_SECONDS)
        assert owed(world, "room") == {"room": {"overflow"}}
        world.server.is_full = False
        await repairs.are_repaired("room")

    assert world.differences() == []


@on_virtual_time
async def test_a_channel_is_reconciled_once_at_a_time(world: World) -> None:
    """Other channels are reconciled beside it."""
    channels = [f"channel{number}" for number in range(SLOTS - 1)]
    unheard(world, ["room", *channels], 3)
    repairs, log = RepairBench(world), Log()
    async with running(repairs):
        repairs.gate.clear()
        await repairs.owe("room", *channels)
        others = [asyncio.create_task(repairs.reconcile.channel("room", Range())) for _ in range(3)]
        await until(
            lambda: all(log.of("reconcile_starts", channel) for channel in ("room", *channels))
        )
        await repairs.owe("room")
        repairs.queue.nudge(["room"])
        await asyncio.sleep(5 * SETTLE_SECONDS)
        assert len(log.of("reconcile_starts")) == 1
        repairs.gate.set()
        await repairs.are_repaired("room", *channels)
        await asyncio.gather(*others)

    # Whoever repaid it, one more may have begun since, and have been cut off.
    turns = [
        entry["event"]
        for entry in log
        if entry in log.of("reconcile_starts") + log.of("reconcile_ends")
    ]
    assert turns.count("reconcile_ends") >= len(others)
    assert all(turn != after for turn, after in pairwise(["reconcile_ends", *turns]))


@on_virtual_time
async def test_marks_of_a_killed_worker_are_repaired(world: World) -> None:
    """They are in Redis, so nothing needs to be noted."""
    unheard(world, ["room", "hall"], 30)
    killed = RepairBench(world)
    async with running(killed):
        killed.gate.clear()
        await killed.owe("room", "hall")
        await until(lambda: killed.asked > 0)
    assert owed(world, "room", "hall").keys() == {"room", "hall"}

    following = RepairBench(world)
    async with running(following):
        await following.are_repaired("room", "hall")

    assert world.differences() == []


@on_virtual_time
async def test_a_mark_noted_at_the_start_counts_once(world: World) -> None:
    """A subscription marks and notes before the queue reads the marks."""
    unheard(world, ["room"], 30)
    repairs, log = RepairBench(world), Log()
    await repairs.owe("room")
    async with running(repairs):
        await repairs.are_repaired("room")
        await asyncio.sleep(100 * SETTLE_SECONDS)

    assert [entry["owed"] for entry in log.of("reconcile_starts")] == [["overflow"]]


@on_virtual_time
async def test_a_refused_channel_is_tried_again(world: World) -> None:
    """It is tried later and later. The other channels are repaired meanwhile."""
    unheard(world, ["room", "hall"], 30)
    world.state.refuse(["room"])
    repairs, log = RepairBench(world), Log()
    async with running(repairs):
        await repairs.owe("room", "hall")
        await repairs.are_repaired("hall")
        await until(lambda: len(log.of("reconcile_starts")) == 6)
        assert owed(world, "room") == {"room": {"overflow"}}
        world.state.refuse([])
        await repairs.are_repaired("room")

    tried = [entry["at"] for entry in log.of("reconcile_starts")]
    expect_doubling_waits(tried, LONGEST_FAILED_SECONDS)
    assert world.differences() == []


def expect_doubling_waits(tried: list[float], longest: float) -> None:
    """Expect each wait to be twice as long as the one before, up to the longest."""
    waits = [after - before for before, after in pairwise(tried)]
    wanted = [min(longest, SETTLE_SECONDS * 2**number) for number in range(len(waits))]
    assert all(
        least <= wait < least + MOMENT_SECONDS for wait, least in zip(waits, wanted, strict=True)
    )


@on_virtual_time
async def test_an_unrepairable_channel_is_tried_less_often(world: World) -> None:
    """Redis refuses an action each time. The other actions count, and the mark stays."""
    unheard(world, ["room"], 30)
    poisoned = world.state.actions("room")[3].identity.message_timetoken
    repairs, seen = RepairBench(world), Witness(world)
    do = world.server.do

    def refuse(name: str, args: Any, options: Any) -> Any:
        if name == "apply" and KEYS.counts("room", poisoned) in args[0]:
            return [["WRONGTYPE Operation against a key holding the wrong kind of value"]]
        return do(name, args, options)

    async with running(repairs):
        with patch.object(world.server, "do", refuse):
            await repairs.owe("room")
            await until(lambda: len(seen.rolls_called) == 6)
            assert owed(world, "room") == {"room": {"quarantined"}}
            assert len(world.differences()) == 1
        await repairs.are_repaired("room")

    expect_doubling_waits(seen.rolls_called, 3600)
    assert world.differences() == []


@on_virtual_time
async def test_a_failing_channel_has_one_timer(world: World) -> None:
    """Sixteen new gaps add no try. Each would add retries that never end."""
    unheard(world, ["room"], 30)
    world.state.refuse(["room"])
    repairs, log = RepairBench(world), Log()
    async with running(repairs):
        await repairs.owe("room")
        await until(lambda: len(log.of("reconcile_starts")) == 6)
        await asyncio.sleep(1)  # it has failed again: the next try is in ten minutes
        for _ in range(16):
            await repairs.owe("room")
            now = str(world.state.time.now())
            await repairs.queue.request(["room"], Range("17000000000000000", now))
        asked = world.pubnub.requests
        await asyncio.sleep(LONGEST_FAILED_SECONDS / 2)
        assert world.pubnub.requests == asked
        world.state.refuse([])
        await repairs.are_repaired("room")

    assert world.differences() == []


@on_virtual_time
async def test_a_forgotten_channel_costs_nothing(world: World) -> None:
    """Its repair has failed, and waits for its next try. That try asks PubNub nothing."""
    unheard(world, ["room"], 3)
    world.state.refuse(["room"])
    repairs, log = RepairBench(world), Log()
    async with running(repairs):
        await repairs.mark("room")
        await repairs.queue.request(["room"], Range(None, await repairs.parts.client.time()))
        await until(lambda: bool(log.of("reconcile_failed")))
        await forget("room", repairs.tables, repairs.parts.store)
        before = repairs.asked
        await asyncio.sleep(3 * LONGEST_FAILED_SECONDS)
        assert repairs.asked == before

        world.state.refuse([])
        await repairs.owe("room", gap=GapCause.NEW_CHANNEL)
        await repairs.are_repaired("room")

    assert world.differences() == []


@pytest.mark.parametrize("seconds", [0, MOMENT_SECONDS], ids=["before a look", "in a look"])
@on_virtual_time
async def test_a_look_does_not_bring_a_channel_back(world: World, seconds: float) -> None:
    """A round had it in its list, or was looking at it, when it was forgotten."""
    unheard(world, ["room"], 3)
    repairs = RepairBench(world)
    names = FollowedNames(Names(), repairs.parts.settings)
    reconciler = Repairs(repairs.parts, names).reconciler
    await repairs.mark("room")
    await asyncio.sleep(SETTLE_SECONDS)
    await reconciler.channel("room", Range())
    [gone, *_] = world.state.actions("room")
    world.remove("room", gone, published=False)
    await asyncio.sleep(SETTLE_SECONDS)

    async with asyncio.TaskGroup() as group:
        if seconds:
            group.create_task(reconciler.channel("room", Range()))
            await asyncio.sleep(seconds)  # it waits for its second pass
        await forget("room", repairs.tables, repairs.parts.store)
        before = repairs.asked
        if not seconds:
            await reconciler.channel("room", Range())
            assert repairs.asked == before

    assert await repairs.tables.channels.all() == frozenset()
    proof = await repairs.tables.proofs.read("room")
    assert (proof.recent, proof.whole) == (0, 0)
    assert await repairs.tables.pending.read("room") == {}


@on_virtual_time
async def test_a_forgotten_channel_gets_no_mark(world: World) -> None:
    """Its look was under way, and left a doubt."""
    parts = worker_parts(world)
    report = ReconcileReport(channel="room", unproven=1)
    worker = ReconcilePolicy(
        SETTLE_SECONDS, parts.clock, parts.slots, lambda _, until: until, is_worker=True
    )

    await ChannelMarks(parts.tables, worker, RepaidGaps()).settle(report, {}, lambda: None)

    assert owed(world, "room") == {}
