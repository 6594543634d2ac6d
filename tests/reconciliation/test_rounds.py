"""Rounds look at each channel as often as it is busy, and at everything in time."""

import asyncio
from collections.abc import Coroutine
from contextlib import AbstractContextManager
from random import Random
from typing import Any
from unittest.mock import patch

import pytest

from tests.bench.repairs import MOMENT_SECONDS, RepairBench, running
from tests.bench.virtual import Log, Witness, act, on_virtual_time, owed, until
from tests.simulation.world import SETTLE_SECONDS, World
from worker.domain.action import Added, Origin
from worker.domain.position import Range, milliseconds
from worker.emulator.calls import Call
from worker.emulator.replies import Reply, html_reply
from worker.emulator.subscription import Subscription
from worker.errors import RedisUnfitError
from worker.reconciliation.rounds import CONCURRENCY, Rounds
from worker.reconciliation.schedule import DAY, Schedule
from worker.source.steady_clock import SteadyClock
from worker.store.pending_repairs import GapCause

HOUR = 3600.0
SCHEDULE = Schedule(every=HOUR, window=DAY, full=7 * DAY, rate=20)


class RoundsBench:
    """Rounds of a worker on virtual time."""

    def __init__(
        self,
        world: World,
        schedule: Schedule = SCHEDULE,
        tries: int | None = None,
        seed: int = 1,
    ) -> None:
        self.world = world
        self.repairs = RepairBench(world, tries)
        parts = self.repairs
        self.proofs = parts.tables.proofs
        self.rounds = Rounds(
            parts.reconcile, parts.queue, parts.tables, self.now, schedule, Random(seed)
        )

    async def now(self) -> str:
        """Return PubNub's time."""
        return str(self.world.state.time.now())

    async def knows(self, *channels: str, recent: float = HOUR, whole: float = HOUR) -> None:
        """Let channels be known, and proven so many seconds ago."""
        await self.repairs.tables.channels.add(channels)
        now = self.world.loop.time()
        for channel in channels:
            await self.proofs.note(channel, round(1000 * (now - whole)))
            await self.proofs.note(channel, round(1000 * (now - recent)), since=0)

    async def once(self) -> int:
        """Make a round; return how many requests it took."""
        before = self.repairs.asked
        await self.rounds.once()
        return self.repairs.asked - before


async def apply(world: World, *added: Added) -> None:
    """Apply additions now, as a live worker does."""
    parts = RepairBench(world)
    await parts.tables.channels.add({item.identity.channel for item in added})
    await parts.applier.apply(added, Origin.LIVE, world.loop.time())


def lose_removal(world: World, added: Added) -> None:
    """Remove an action without an event."""
    of, at = added.identity, int(added.action_timetoken)
    world.state.remove(of.channel, of.message_timetoken, at, of.uuid, published=False)


@on_virtual_time
async def test_a_round_finds_an_unpublished_addition(world: World) -> None:
    """In every channel that changed lately. Older ones are left to a look at everything."""
    channels = [f"channel{number}" for number in range(12)]
    bench = RoundsBench(world)
    await bench.knows(*channels)
    for channel in channels:
        await apply(world, act(world, 60, channel))
        act(world, 2 * HOUR, channel, "ben")
    old = act(world, 40 * DAY, "channel0")

    await bench.rounds.once()

    truth = world.state.truth()
    del truth["channel0"][old.identity.message_timetoken]
    assert world.counts() == truth


@on_virtual_time
async def test_a_look_at_everything_finds_lost_removals_of_any_age(world: World) -> None:
    """Their ages are from hours to years. Every channel has such a look within a week."""
    ages = [3 * HOUR, 20 * HOUR, 26 * HOUR, 2 * DAY, 9 * DAY, 100 * DAY, 1000 * DAY]
    kept = [act(world, age * factor, uuid="ben") for age in ages for factor in (0.97, 1.03)]
    lost = [act(world, age) for age in ages]
    await apply(world, *kept, *lost)
    bench = RoundsBench(world)
    await bench.knows("room", recent=60, whole=60)
    for added in lost:
        lose_removal(world, added)
    making = asyncio.create_task(bench.rounds.run())

    await asyncio.sleep(7 * DAY)

    making.cancel()
    assert world.differences() == []


@pytest.mark.parametrize(("changed", "limit"), [(0.5 * HOUR, HOUR), (3 * DAY, DAY)])
@on_virtual_time
async def test_a_lost_addition_is_found_in_time(world: World, changed: float, limit: float) -> None:
    """Of an active room within the hour, of a quiet one within a day."""
    bench = RoundsBench(world)
    await apply(world, act(world, changed))
    await asyncio.sleep(changed)
    await bench.knows("room", recent=60, whole=60)
    making = asyncio.create_task(bench.rounds.run())
    for _ in range(5):
        await asyncio.sleep(100)
        message = str(world.state.time.now())
        world.add("room", message, "👍", "ben", published=False)
        await asyncio.sleep(limit)

        assert world.differences() == []
        await apply(world, act(world, 1, uuid="cy"))  # as busy as before
        await asyncio.sleep(changed if changed < HOUR else 0)
    making.cancel()


@on_virtual_time
async def test_an_interrupted_look_at_everything_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A room is so big that a worker is stopped in the middle of each look."""
    monkeypatch.setattr("worker.store.entries.PIECE_ENTRIES", 20)
    actions = [act(world, HOUR + number, uuid=f"user{number}") for number in range(300)]
    await apply(world, *actions)
    one, other = RoundsBench(world), RoundsBench(world)
    await one.knows("room", whole=7 * DAY)
    for lost in actions[10::50]:
        lose_removal(world, lost)
    cut_off = asyncio.create_task(one.rounds.once())
    await until(lambda: len(world.differences()) == 3)
    cut_off.cancel()
    await asyncio.gather(cut_off, return_exceptions=True)

    log = Log()
    await other.rounds.once()

    assert world.differences() == []
    (report,) = log.of("reconcile_ends")
    assert report["pruned"] == 3
    assert report["listed"] < 200
    assert await other.once() == 0


@on_virtual_time
async def test_a_fatal_error_ends_the_rounds(world: World) -> None:
    """So the worker ends, as everywhere."""
    bench = RoundsBench(world)
    await bench.knows("room", whole=7 * DAY)
    fatal = patch.object(bench.repairs.reconcile, "channel", side_effect=RedisUnfitError("no"))

    with fatal, pytest.raises(ExceptionGroup) as failure:
        await bench.rounds.once()

    assert failure.group_contains(RedisUnfitError)


@on_virtual_time
async def test_what_is_not_due_costs_nothing(world: World) -> None:
    """Active, quiet and silent channels have been looked at."""
    bench = RoundsBench(world)
    await bench.knows("active", "quiet", "silent", recent=0.3 * HOUR)
    for channel in ("active", "quiet"):
        await apply(world, act(world, 60, channel))

    assert await bench.once() == 0
    await asyncio.sleep(0.4 * HOUR)
    assert await bench.once() > 0

    await apply(world, act(world, 60, "active", "ben"))
    for _ in range(5):
        await bench.once()
        await asyncio.sleep(HOUR)
    log = Log()
    await apply(world, act(world, 60, "active", "cy"))
    await bench.once()
    looked_at = {entry["channel"] for entry in log if entry["event"] == "reconcile_starts"}
    assert looked_at == {"active"}


@on_virtual_time
async def test_a_clock_that_is_behind_begins_no_round_twice(world: World) -> None:
    """A worker asks PubNub for the time once in ten minutes, and adds a little less than passes."""
    bench, log = RoundsBench(world), Log()
    clock = SteadyClock(bench.now, world.loop.time)
    await clock.now()

    with patch.object(bench.rounds, "_now", clock.now):
        rounds = asyncio.create_task(bench.rounds.run())
        for _ in range(4 * 60):
            await asyncio.sleep(60)
            await clock.now()  # repairs and looks use the same clock
        rounds.cancel()
        await asyncio.gather(rounds, return_exceptions=True)

    began = [entry for entry in log if entry["event"] == "round_starts"]
    assert len(began) == 4 * HOUR / SCHEDULE.period


@on_virtual_time
async def test_an_interrupted_round_goes_on(world: World) -> None:
    """Another worker makes only what is left; this one has nothing left then."""
    channels = [f"channel{number}" for number in range(4)]
    with patch("worker.reconciliation.rounds.CONCURRENCY", 1):
        one, other = RoundsBench(world), RoundsBench(world)
    await one.knows(*channels)
    for channel in channels:
        await apply(world, act(world, 60, channel))
        act(world, 60, channel, "ben")
    one.repairs.seconds_a_request = 5
    cut_off = asyncio.create_task(one.rounds.once())
    await until(lambda: len(world.differences()) == 2)
    cut_off.cancel()
    await asyncio.gather(cut_off, return_exceptions=True)

    log = Log()
    await other.rounds.once()

    assert world.differences() == []
    began = [entry for entry in log if entry["event"] == "reconcile_starts"]
    assert 0 < len(began) < 4
    assert await one.once() == 0


@on_virtual_time
async def test_two_workers_share_a_round(world: World) -> None:
    """Each skips what the other one has proven meanwhile."""
    channels = [f"channel{number}" for number in range(100)]
    with patch("worker.reconciliation.rounds.CONCURRENCY", 4):
        one, other = RoundsBench(world, seed=1), RoundsBench(world, seed=2)
    await one.knows(*channels)
    for channel in channels:
        await apply(world, act(world, 60, channel))

    await asyncio.gather(one.rounds.once(), other.rounds.once())

    asked = one.repairs.asked + other.repairs.asked
    assert 3 * len(channels) <= asked < 1.3 * 3 * len(channels)


@on_virtual_time
async def test_an_owed_channel_is_left_to_the_repair_queue(world: World) -> None:
    """Its worker is gone, so the queue is told. It is reconciled once, as a whole."""
    act(world, HOUR)
    bench, log = RoundsBench(world), Log()
    await bench.knows("room", "hall")
    for channel in ("room", "hall"):
        await apply(world, act(world, 60, channel))
    async with running(bench.repairs):
        await bench.repairs.mark("room")

        await bench.rounds.once()
        await bench.repairs.are_repaired("room")
        await asyncio.sleep(5 * SETTLE_SECONDS)

    began = [entry for entry in log if entry["event"] == "reconcile_starts"]
    assert sorted((entry["channel"], bool(entry["since"])) for entry in began) == [
        ("hall", True),
        ("room", False),
    ]
    assert await bench.once() == 0, "the repair is a proof, too"


@on_virtual_time
async def test_a_nudge_delays_no_waiting_channel(world: World) -> None:
    """Otherwise a round would keep a channel waiting for ever."""
    act(world, HOUR)
    repairs, seen = RepairBench(world), Witness(world)
    async with running(repairs):
        await repairs.owe("room")
        noted = world.loop.time()
        for _ in range(10):
            await asyncio.sleep(SETTLE_SECONDS / 10)
            repairs.queue.nudge(["room"])
        await repairs.are_repaired("room")

    assert min(seen.rolls_called) < noted + SETTLE_SECONDS + MOMENT_SECONDS


@on_virtual_time
async def test_a_prune_is_looked_at_again_within_hours(world: World) -> None:
    """PubNub listed nothing for a while. The next look brings everything back."""
    bench = RoundsBench(world)
    actions = [act(world, 2 * DAY + number, uuid=f"user{number}") for number in range(9)]
    await apply(world, *actions)
    await bench.knows("room", whole=7 * DAY)
    making = asyncio.create_task(bench.rounds.run())
    lost = actions[3]
    lose_removal(world, lost)
    await until(lambda: not world.differences())
    world.state.add(
        *("room", lost.identity.message_timetoken, "reaction", "👍", "user3"),
        published=False,
        at=int(lost.action_timetoken),
    )
    assert world.differences()

    await asyncio.sleep(2.5 * HOUR)

    making.cancel()
    assert world.differences() == []


@on_virtual_time
async def test_a_prune_of_a_repair_is_looked_at_again_too(world: World) -> None:
    """Everything was proven an hour ago: without the prune the next look were days away."""
    bench = RoundsBench(world)
    actions = [act(world, 2 * DAY + number, uuid=f"user{number}") for number in range(9)]
    await apply(world, *actions)
    await bench.knows("room")
    lose_removal(world, actions[3])
    async with running(bench.repairs):
        await bench.repairs.owe("room")
        await bench.repairs.are_repaired("room")
        await asyncio.sleep(1)

    proof = await bench.proofs.read("room")
    now = milliseconds(await bench.now())
    look = SCHEDULE.due("room", proof, now + round(2.1 * HOUR * 1000))
    assert look is not None
    assert look.wanted == Range()


@on_virtual_time
async def test_refused_channels_delay_no_other(world: World) -> None:
    """There are more of them than looks at once. They are tried again in the next round, last."""
    refused = [f"a{number}" for number in range(CONCURRENCY + 5)]
    bench = RoundsBench(world)
    await bench.knows(*refused, "room")
    for channel in [*refused, "room"]:
        await apply(world, act(world, 60, channel))
        act(world, 60, channel, "ben")
    world.state.refuse(refused)

    assert await bench.once() == len(refused) + 3

    assert [line for line in world.differences() if line.startswith("room")] == []
    assert owed(world, *refused) == {}
    log = Log()
    await asyncio.sleep(HOUR)
    assert await bench.once() == len(refused) + 3
    began = [entry["channel"] for entry in log if entry["event"] == "reconcile_starts"]
    assert "room" in began[:CONCURRENCY]


def broken(world: World, channels: list[str]) -> AbstractContextManager[object]:
    """Let PubNub fail whenever one of these lists is requested."""
    ever = world.pubnub.reply

    def reply(
        operation: str, asked: Subscription, call: Call
    ) -> Reply | Coroutine[Any, Any, Reply]:
        if operation == "actions" and not set(channels).isdisjoint(asked.channels):
            return html_reply(500, "Internal Server Error")
        return ever(operation, asked, call)

    return patch.object(world.pubnub, "reply", reply)


@on_virtual_time
async def test_broken_lists_delay_no_round(world: World) -> None:
    """There are more of them than looks at once. They stay unproven, and due."""
    bad = [f"a{number}" for number in range(CONCURRENCY + 5)]
    bench = RoundsBench(world, tries=3)
    await bench.knows(*bad, "room")
    for channel in [*bad, "room"]:
        await apply(world, act(world, 60, channel))
        act(world, 60, channel, "ben")
    with broken(world, bad):
        await bench.rounds.once()

        assert [line for line in world.differences() if line.startswith("room")] == []
        assert await bench.repairs.tables.rounds.read()
        assert owed(world, *bad, "room") == {}
    await asyncio.sleep(1.1 * HOUR)
    await bench.rounds.once()

    assert world.differences() == []


@pytest.mark.parametrize("operations", [["time"], ["actions"], ["time", "actions"]])
@on_virtual_time
async def test_an_outage_is_waited_out(world: World, operations: list[str]) -> None:
    """The round is made when PubNub answers again."""
    bench = RoundsBench(world)
    await bench.knows("room")
    await apply(world, act(world, 60))
    act(world, HOUR, uuid="ben")
    world.state.set_outage("server_error", operations)
    making = asyncio.create_task(bench.rounds.once())

    await asyncio.sleep(HOUR)
    assert not making.done()
    world.state.set_outage(None)
    await making

    assert world.differences() == []


@on_virtual_time
async def test_a_long_look_holds_up_no_other_round(world: World) -> None:
    """One channel answers after hours only. The others are looked at on time."""
    bench = RoundsBench(world, tries=None)
    await bench.knows("slow", "room")
    for channel in ("slow", "room"):
        await apply(world, act(world, 60, channel))
    making, log = asyncio.create_task(bench.rounds.run()), Log()
    with broken(world, ["slow"]):
        await asyncio.sleep(HOUR)
        act(world, 60, "room", "ben")
        await asyncio.sleep(1.1 * HOUR)

        assert [line for line in world.differences() if line.startswith("room")] == []
    assert len(log.of("reconcile_starts", "slow")) == 1
    making.cancel()


@on_virtual_time
async def test_what_a_look_leaves_in_doubt_is_owed(world: World) -> None:
    """More than the limit is gone from the list. The repair queue goes on with it."""
    bench = RoundsBench(world)
    actions = [act(world, 2 * HOUR + number, uuid=f"user{number}") for number in range(90)]
    await apply(world, *actions)
    await bench.knows("room")
    proof = await bench.proofs.read("room")
    for added in actions[:30]:
        lose_removal(world, added)

    async with running(bench.repairs):
        await bench.rounds.once()
        assert owed(world, "room") == {"room": {GapCause.UNPROVEN}}
        after = await bench.proofs.read("room")
        assert (after.recent, after.whole) == (proof.recent, proof.whole)
        log = Log()
        await asyncio.sleep(SETTLE_SECONDS + MOMENT_SECONDS)

    assert [entry["since"] for entry in log.of("reconcile_starts")] == [None]
