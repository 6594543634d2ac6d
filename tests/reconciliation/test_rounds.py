"""Rounds read the recent past each time, and the whole past within a turn."""

import asyncio
from collections.abc import Coroutine
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.bench.repairs import MOMENT_SECONDS, RepairBench, running
from tests.bench.virtual import Log, Witness, act, on_virtual_time, owed, until
from tests.histories import steady
from tests.simulation.loop import START
from tests.simulation.world import SETTLE_SECONDS, World
from worker.domain.action import Added, Origin
from worker.domain.position import TICKS_PER_SECOND, Range, from_seconds, is_after, shift
from worker.emulator.calls import Call
from worker.emulator.replies import Reply, html_reply
from worker.emulator.subscription import Subscription
from worker.reconciliation.rounds import Rounds, Schedule
from worker.store.pending_repairs import GapCause

HOUR, DAY = 3600.0, 86400.0
SCHEDULE = Schedule(every=HOUR, window=DAY, full=6 * HOUR)


def scheduled(every: float, window: float, pieces: int, rest: float) -> Schedule:
    """Return a schedule of so many pieces; the last one may be cut short."""
    return Schedule(every, window, max(1.0, (pieces - rest) * every))


schedules = st.builds(
    scheduled,
    every=st.one_of(st.floats(1, 1e5), st.integers(1, 90_000).map(float)),
    window=st.floats(1, 1e6),
    pieces=st.integers(1, 60),
    rest=st.floats(0, 0.9),
)
timetokens = st.integers(1, 2 * 10**17).map(str)


def turn_of(schedule: Schedule, number: int) -> list[int]:
    """Return the numbers of all rounds of the turn that a round belongs to."""
    first = number - number % schedule.pieces
    return list(range(first, first + schedule.pieces))


@steady
@example(SCHEDULE, 0, "5", 0.5)
@example(Schedule(10.0, 20.0, 5.0), 7, None, 0.5)
@given(schedules, st.integers(0, 10**6), st.one_of(st.none(), timetokens), st.floats(0, 1))
def test_the_pieces_of_a_turn_cover_the_past_once(
    schedule: Schedule, number: int, oldest: str | None, place: float
) -> None:
    """They reach from the first action to the turn's window, without a gap."""
    turn = turn_of(schedule, number)
    begin = turn[0] * schedule.every - schedule.window
    newest = str(max(1, round(begin * TICKS_PER_SECOND)))

    pieces = [piece for number in turn if (piece := schedule.piece(number, oldest))]

    assert pieces[0].until == newest
    assert pieces[-1].since is None
    assert [piece.since for piece in pieces[:-1]] == [piece.until for piece in pieces[1:]]
    assert not any(
        is_after(piece.since, piece.until) for piece in pieces if piece.since and piece.until
    )
    action = str(max(1, int(place * int(newest))))
    assert sum(piece.covers(action) for piece in pieces) == (action != newest)
    assert not any(
        piece.covers(shift(newest, ticks)) for piece in pieces for ticks in (0, 1, 10**15)
    )


@steady
@given(schedules, st.integers(2 * 10**6, 3 * 10**6))
def test_the_pieces_of_a_turn_are_equal(schedule: Schedule, number: int) -> None:
    """The oldest message lies in the last piece."""
    turn = turn_of(schedule, number)
    newest = round((turn[0] * schedule.every - schedule.window) * TICKS_PER_SECOND)
    oldest = newest // 3

    pieces = [piece for number in turn if (piece := schedule.piece(number, str(oldest)))]

    assert len(pieces) == schedule.pieces
    longest = (newest - oldest) // schedule.pieces + 1
    for piece in pieces:
        assert piece.until
        assert int(piece.until) - (int(piece.since) if piece.since else oldest) <= longest
    # Each piece is some ticks too long, so a turn may pass the oldest message a little early.
    assert any(piece.covers(str(oldest)) for piece in pieces[-2:])


@steady
@example(SCHEDULE, 6 * 80_000, 6, "5", 0.5)
@example(SCHEDULE, 6 * 80_000 + 3, 6, "5", 0.5)
@example(SCHEDULE, 6 * 80_000 + 1, 6, None, 0.5)
@given(
    schedules,
    st.integers(0, 10**6),
    st.integers(1, 50),
    st.one_of(st.none(), timetokens),
    st.floats(0, 1),
)
def test_left_out_pieces_are_read_as_one(
    schedule: Schedule, number: int, count: int, oldest: str | None, place: float
) -> None:
    """The pieces of each turn lie side by side. Nothing else is read, and nothing twice."""
    missed = range(number, number + count)
    pieces = [piece for number in missed if (piece := schedule.piece(number, oldest))]

    stretches = schedule.stretches(missed, oldest)

    assert len(stretches) <= len({number // schedule.pieces for number in missed})
    newest = max((int(piece.until) for piece in pieces if piece.until), default=2)
    edges = [
        shift(edge, ticks)
        for piece in pieces
        for edge in (piece.since, piece.until)
        if edge
        for ticks in (-1, 0, 1)
    ]
    for action in [*edges, str(max(1, int(place * newest))), str(newest + 10**9)]:
        assert any(number.covers(action) for number in stretches) == any(
            piece.covers(action) for piece in pieces
        )


def test_a_channel_without_a_past_has_one_piece() -> None:
    """A channel without a dated message is read as a whole."""
    turn = turn_of(SCHEDULE, 500_000)
    end = shift("0", round((turn[0] * HOUR - DAY) * TICKS_PER_SECOND))

    for oldest in (None, end, shift(end, 1)):
        assert [SCHEDULE.piece(number, oldest) for number in turn] == [
            Range(None, end),
            *[None] * 5,
        ]


def test_a_round_begins_with_its_hour() -> None:
    """PubNub's clock counts."""
    assert SCHEDULE.round_at(from_seconds(1_760_000_400)) == 1_760_000_400 // 3600
    assert SCHEDULE.round_at(from_seconds(3600 * 7)) == 7
    assert SCHEDULE.round_at(from_seconds(3600 * 7 - 1)) == 6


class RoundsBench:
    """Rounds whose hours pass when a test says so; their turn is over."""

    def __init__(
        self, world: World, schedule: Schedule = SCHEDULE, tries: int | None = None
    ) -> None:
        self.repairs = RepairBench(world, tries)
        self.schedule = schedule
        self.turn = turn_of(schedule, schedule.round_at(from_seconds(START)) - schedule.pieces)
        self.number = self.turn[0]
        parts = self.repairs
        self.rounds = Rounds(
            parts.reconcile,
            parts.queue,
            parts.entries,
            parts.tables,
            self.now,
            schedule,
        )

    async def now(self) -> str:
        """Return a time in the middle of the round."""
        return from_seconds((self.number + 0.5) * self.schedule.every)


async def apply(world: World, *added: Added) -> None:
    """Apply additions, as a backfill does."""
    parts = RepairBench(world)
    await parts.applier.apply(added, Origin.BACKFILL, world.loop.time())
    await parts.tables.channels.add(["room"])


def lose_removal(world: World, added: Added) -> None:
    """Remove an action without an event."""
    of, at = added.identity, int(added.action_timetoken)
    world.state.remove(of.channel, of.message_timetoken, at, of.uuid, published=False)


@on_virtual_time
async def test_the_window_finds_an_unpublished_addition(world: World) -> None:
    """Each round finds it in every channel. Older ones are left to their piece."""
    channels = [f"channel{number}" for number in range(12)]
    for channel in channels:
        act(world, 2 * HOUR, channel)
    old = act(world, 40 * DAY, "channel0")
    bench = RoundsBench(world)
    await bench.repairs.tables.channels.add([*channels, "empty"])
    bench.number += 1  # the first piece of a channel without messages is its whole past

    await bench.rounds.once()

    truth = world.state.truth()
    del truth["channel0"][old.identity.message_timetoken]
    assert world.counts() == truth


@on_virtual_time
async def test_a_piece_finds_a_lost_removal(world: World) -> None:
    """It is a month old. Only one round of the turn finds it."""
    added = [act(world, days * DAY, uuid=f"user{days}") for days in range(2, 31)]
    await apply(world, *added)
    lost = added[17]
    lose_removal(world, lost)
    bench = RoundsBench(world)
    healed, covering = [], []

    for number in bench.turn:
        bench.number = number
        piece = bench.schedule.piece(number, added[-1].identity.message_timetoken)
        if piece and piece.covers(lost.action_timetoken):
            covering.append(number)
        await bench.rounds.once()
        if not world.differences():
            healed.append(number)

    assert len(covering) == 1
    assert healed == [number for number in bench.turn if number >= covering[0]]


@on_virtual_time
async def test_a_turn_finds_lost_removals_of_any_age(world: World) -> None:
    """Their ages are from hours to years."""
    ages = [3 * HOUR, 20 * HOUR, 26 * HOUR, 2 * DAY, 9 * DAY, 100 * DAY, 1000 * DAY]
    kept = [act(world, age * factor, uuid="ben") for age in ages for factor in (0.97, 1.03)]
    lost = [act(world, age) for age in ages]
    await apply(world, *kept, *lost)
    for added in lost:
        lose_removal(world, added)
    bench = RoundsBench(world)

    for number in bench.turn:
        bench.number = number
        await bench.rounds.once()

    assert world.differences() == []


@on_virtual_time
async def test_left_out_pieces_are_made_up_for(world: World) -> None:
    """A round took too long, or no worker ran. The next round reads their pieces, too."""
    added = [act(world, days * DAY, uuid=f"user{days}") for days in range(2, 31)]
    await apply(world, *added)
    bench = RoundsBench(world)
    await bench.rounds.once()
    lose_removal(world, added[17])

    bench.number = bench.turn[-1]
    await bench.rounds.once()

    assert world.differences() == []


@on_virtual_time
async def test_a_round_is_made_once(world: World) -> None:
    """The quicker worker makes it. A round that was cut off does not count."""
    act(world, HOUR)
    one, other = RoundsBench(world), RoundsBench(world)
    await one.repairs.tables.channels.add(["room"])
    one.repairs.gate.clear()
    cut_off = asyncio.create_task(one.rounds.once())
    await until(lambda: one.repairs.asked > 0)
    cut_off.cancel()
    await asyncio.gather(cut_off, return_exceptions=True)

    await other.rounds.once()
    assert world.differences() == []
    one.repairs.gate.set()
    one.repairs.asked = other.repairs.asked = 0
    await one.rounds.once()
    assert one.repairs.asked == 0

    other.number += 1
    await other.rounds.once()
    assert other.repairs.asked > 0


@on_virtual_time
async def test_a_longer_period_keeps_rounds(world: World) -> None:
    """The number of a round becomes smaller with the new period."""
    before = RoundsBench(world, Schedule(every=60, window=DAY, full=6 * HOUR))
    await before.repairs.tables.channels.add(["room"])
    await before.rounds.once()
    act(world, HOUR)

    bench = RoundsBench(world)
    bench.number += 1  # a round was made in that hour
    await bench.rounds.once()

    assert world.differences() == []


@on_virtual_time
async def test_a_marked_channel_is_nudged(world: World) -> None:
    """Its worker is gone. Only this channel is reconciled as a whole."""
    act(world, HOUR)
    act(world, HOUR, "hall")
    bench, log = RoundsBench(world), Log()
    await bench.repairs.tables.channels.add(["room", "hall"])
    async with running(bench.repairs):
        await bench.repairs.mark("room")

        await bench.rounds.once()
        await bench.repairs.are_repaired("room")
        await asyncio.sleep(5 * SETTLE_SECONDS)

    began = [entry for entry in log if entry["event"] == "reconcile_starts"]
    assert {entry["channel"] for entry in began} == {"room", "hall"}
    assert [entry["channel"] for entry in began if not entry["since"] and not entry["until"]] == [
        "room"
    ]


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
async def test_refused_channels_delay_no_other(world: World) -> None:
    """There are more of them than tasks."""
    refused = [f"a{number}" for number in range(9)]
    for channel in [*refused, "room"]:
        act(world, HOUR, channel)
    bench = RoundsBench(world)
    await bench.repairs.tables.channels.add([*refused, "room"])
    world.state.refuse(refused)

    await bench.rounds.once()

    assert set(world.counts()) == {"room"}


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
    """There are more of them than tasks. The repair queue tries them again."""
    bad = [f"a{number}" for number in range(9)]
    for channel in [*bad, "room"]:
        act(world, HOUR, channel)
    bench = RoundsBench(world, tries=3)
    await bench.repairs.tables.channels.add([*bad, "room"])
    async with running(bench.repairs):
        with broken(world, bad):
            await bench.rounds.once()

            assert set(world.counts()) == {"room"}
            assert await bench.repairs.tables.rounds.read() == await bench.now()
            assert owed(world, *bad, "room") == {channel: {GapCause.UNPROVEN} for channel in bad}
        await bench.repairs.are_repaired(*bad)

    assert world.differences() == []


@pytest.mark.parametrize("operations", [["time"], ["actions"], ["time", "actions"]])
@on_virtual_time
async def test_an_outage_is_waited_out(world: World, operations: list[str]) -> None:
    """The round is made when PubNub answers again."""
    act(world, HOUR)
    bench = RoundsBench(world)
    await bench.repairs.tables.channels.add(["room"])
    world.state.set_outage("server_error", operations)
    making = asyncio.create_task(bench.rounds.once())

    await asyncio.sleep(HOUR)
    assert not making.done()
    world.state.set_outage(None)
    await making

    assert world.differences() == []
