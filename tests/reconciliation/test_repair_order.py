"""Who is repaired first, and who holds nobody up."""

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest

from tests.bench.repairs import MOMENT_SECONDS, RepairBench, running
from tests.bench.virtual import Log, on_virtual_time, owed, unheard, until
from tests.simulation.pubnub_twin import ClientTwin
from tests.simulation.world import HOUR, SETTLE_SECONDS, World
from worker.applying.slots import SLOTS, Slots, Urgency
from worker.domain.position import TICKS_PER_SECOND, Range, shift
from worker.errors import PubNubError
from worker.source.client import Page
from worker.store.pending_repairs import GapCause


@on_virtual_time
async def test_a_channel_that_waits_holds_no_slot(world: World) -> None:
    """Forty channels in doubt wait a settle time, all at the same time."""
    channels = [f"room{number}" for number in range(5 * SLOTS)]
    unheard(world, channels, 3)
    repairs = RepairBench(world)
    async with running(repairs):
        await repairs.owe(*channels)
        await repairs.are_repaired(*channels)
        for channel in channels:
            world.remove(channel, world.state.actions(channel)[1], published=False)
        await asyncio.sleep(SETTLE_SECONDS)
        began = world.loop.time()
        await repairs.owe(*channels)
        await repairs.are_repaired(*channels)

    assert world.loop.time() - began < 3 * SETTLE_SECONDS
    assert world.differences() == []


@on_virtual_time
async def test_failing_channels_hold_nobody_up(world: World) -> None:
    """More channels than slots answer 500 for ever. Another one is repaired at once."""
    failing = [f"failing{number}" for number in range(2 * SLOTS)]
    unheard(world, [*failing, "room"], 3)
    repairs = RepairBench(world, tries=20)
    with _failing(failing):
        async with running(repairs):
            await repairs.owe(*failing)
            await asyncio.sleep(SETTLE_SECONDS + MOMENT_SECONDS)
            began = world.loop.time()
            await repairs.owe("room")
            await repairs.are_repaired("room")
            assert world.loop.time() - began < SETTLE_SECONDS + 4 * MOMENT_SECONDS
            assert owed(world, *failing).keys() == set(failing)


@contextmanager
def _failing(channels: Collection[str]) -> Iterator[None]:
    """Let PubNub answer 500 where it is asked for these lists."""
    ever = ClientTwin.message_actions

    async def actions(client: ClientTwin, channel: str, **bounds: Any) -> Page:
        if channel not in channels:
            return await ever(client, channel, **bounds)
        await asyncio.sleep(0.1)
        raise PubNubError("PubNub answers 500", status=500)

    with patch.object(ClientTwin, "message_actions", actions):
        yield


@on_virtual_time
async def test_a_configured_channel_comes_first(world: World) -> None:
    """A stranger has invented four hundred rooms under a wildcard."""
    invented = [f"invented{number:03d}" for number in range(400)]
    unheard(world, ["room"], 3)
    repairs, log = RepairBench(world, configured=["room"]), Log()
    repairs.seconds_a_request = 0.5
    now = str(world.state.time.now())
    async with running(repairs):
        await repairs.mark(*invented, "room", gap=GapCause.NEW_CHANNEL)
        await repairs.queue.request(invented, Range(None, now))
        await asyncio.sleep(MOMENT_SECONDS)
        began = world.loop.time()
        await repairs.queue.request(["room"], Range(None, now))
        await until(lambda: bool(log.of("backfill_ends")))

    assert world.loop.time() - began < 5
    ended = [entry for entry in log if entry["event"] == "backfill_ends"]
    assert len(ended) < 100


@pytest.mark.parametrize("is_counted", [False, True])
@on_virtual_time
async def test_long_lists_give_way_to_a_configured_channel(world: World, is_counted: bool) -> None:
    """A stranger's rooms have long lists, and all the slots, in a backfill or in a look."""
    invented = [f"invented{number}" for number in range(SLOTS)]
    unheard(world, invented, 800)
    unheard(world, ["room"], 3)
    repairs, log = RepairBench(world, configured=["room"]), Log()
    now = str(world.state.time.now())
    async with running(repairs):
        if is_counted:
            await repairs.owe(*invented)
            await asyncio.sleep(SETTLE_SECONDS - MOMENT_SECONDS)
        else:
            await repairs.mark(*invented, gap=GapCause.NEW_CHANNEL)
            await repairs.queue.request(invented, Range(None, now))
        await repairs.mark("room", gap=GapCause.NEW_CHANNEL)
        repairs.seconds_a_request = 1.0
        await asyncio.sleep(2 * MOMENT_SECONDS)
        began = world.loop.time()
        await repairs.queue.request(["room"], Range(None, now))
        await until(lambda: bool(log.of("backfill_ends")))

    assert world.loop.time() - began < 5


@on_virtual_time
async def test_a_busy_room_reads_the_stretches_of_its_gaps(world: World) -> None:
    """Gaps come for hours. Its long past is not read for each of them."""
    unheard(world, ["room"], 1000)
    repairs = RepairBench(world)
    repairs.seconds_a_request = 30
    async with running(repairs):
        await repairs.owe("room")
        await repairs.are_repaired("room")
        whole = repairs.asked
        assert whole >= 10
        began, repairs.asked = world.loop.time(), 0
        gaps = 0
        while world.loop.time() < began + 3 * HOUR:
            until_now = str(world.state.time.now())
            await repairs.mark("room")
            stretch = Range(shift(until_now, -30 * TICKS_PER_SECOND), until_now)
            await repairs.queue.request(["room"], stretch)
            gaps += 1
            await asyncio.sleep(30)
        looks = 3 * HOUR / (5 * whole * repairs.seconds_a_request)

    # A look takes a fifth of the time at most; each gap costs a request for its stretch, or two.
    assert repairs.asked <= (looks + 1) * whole + 2 * gaps


@on_virtual_time
async def test_a_look_that_takes_much_of_the_budget_is_paced(world: World) -> None:
    """Gap after gap settles. At this rate a look takes more than a minute of the budget."""
    unheard(world, ["room"], 1000)
    repairs, log = RepairBench(world, rate=0.1), Log()
    repairs.seconds_a_request = 10
    async with running(repairs):
        for _ in range(60):
            await repairs.owe("room")
            await asyncio.sleep(2 * SETTLE_SECONDS)

    ends, begins = log.of("reconcile_ends"), log.of("reconcile_starts")
    pauses = [begin["at"] - end["at"] for end, begin in zip(ends, begins[1:], strict=False)]
    assert len(pauses) > 5
    assert min(pauses) >= 4 * 100


@on_virtual_time
async def test_a_long_look_goes_on_after_a_kill(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The place is saved after each piece. The marks are those of the beginning."""
    monkeypatch.setattr("worker.store.entries.PIECE_ENTRIES", 20)
    unheard(world, ["room"], 300)
    first = RepairBench(world)
    async with running(first):
        await first.owe("room")
        await first.are_repaired("room")
    assert world.differences() == []
    gone = world.state.actions("room")[10::50]
    for action in gone:
        world.remove("room", action, published=False)
    await asyncio.sleep(SETTLE_SECONDS)

    killed, log = RepairBench(world), Log()
    async with running(killed):
        await killed.owe("room")
        await until(lambda: len(world.differences()) == len(gone) // 2)
    reached = await killed.tables.progress.read_look("room")
    assert reached

    following = RepairBench(world)
    async with running(following):
        await until(lambda: bool(log.of("reconcile_ends")))

    assert world.differences() == []
    assert await killed.tables.progress.read_look("room") is None
    (report,) = log.of("reconcile_ends")
    assert report["pruned"] == len(gone) // 2
    assert report["listed"] < 200


async def test_slots_go_to_the_most_urgent_first() -> None:
    """Among equals the one who has waited longest is first."""
    slots, order = Slots(1), []

    async def work(name: str, urgency: Urgency) -> None:
        async with slots.held(urgency):
            order.append(name)
            await asyncio.sleep(0)

    names = {"round": Urgency.ROUND, "b": Urgency.OWED, "a": Urgency.OWED}
    names["configured"] = Urgency.CONFIGURED
    async with slots.held(Urgency.ROUND):
        tasks = [asyncio.create_task(work(*pair)) for pair in names.items()]
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)

    assert order == ["configured", "b", "a", "round"]


async def test_a_cancelled_task_leaves_no_slot_taken() -> None:
    """Before it has its slot, while it has one, and while it pauses."""
    slots = Slots(1)

    async def pause() -> None:
        async with slots.held(Urgency.OWED):
            await slots.pause(3600)

    async def hold() -> None:
        async with slots.held(Urgency.OWED):
            await asyncio.sleep(3600)

    tasks = [asyncio.create_task(work()) for work in (pause, hold, hold)]
    for _ in range(5):
        await asyncio.sleep(0)
    for task in reversed(tasks):
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async with asyncio.timeout(5), slots.held(Urgency.OWED):
        pass
    assert slots._free == 1
