"""Going round: over one turn everything is looked at, the recent past each time; and what is found is put right."""

import asyncio
import time

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tests.source.scripted import wait_until
from tests.verbs.comparing import answer_oddly
from tests.verbs.conftest import Bench
from tests.verbs.test_debts import Repaying, running
from worker.domain.action import Added, Identity, Origin
from worker.domain.position import TICKS_PER_SECOND, Range, from_seconds, is_after, shift
from worker.emulator import Page, Window
from worker.emulator.replies import RefusedError, html_reply
from worker.rounds import Rounds, Schedule
from worker.store.marks import Gap

HOUR, DAY = 3600.0, 86400.0
SCHEDULE = Schedule(every=HOUR, window=DAY, full=6 * HOUR)

schedules = st.builds(
    Schedule,
    every=st.one_of(st.floats(1, 1e5), st.integers(1, 90_000).map(float)),
    window=st.floats(1, 1e6),
    full=st.floats(1, 1e6),
)
timetokens = st.integers(1, 2 * 10**17).map(str)


def turn_of(schedule: Schedule, number: int) -> list[int]:
    """Return the numbers of all rounds of the turn a round belongs to."""
    first = number - number % schedule.pieces
    return list(range(first, first + schedule.pieces))


@example(SCHEDULE, 0, "5", 0.5)
@example(Schedule(10.0, 20.0, 5.0), 7, None, 0.5)
@given(schedules, st.integers(0, 10**6), st.one_of(st.none(), timetokens), st.floats(0, 1))
def test_the_pieces_of_a_turn_are_everything_exactly_once(
    schedule: Schedule, number: int, oldest: str | None, place: float
) -> None:
    """From the very first action to where the turn's window began; each piece ends where the one before begins."""
    assume(schedule.pieces <= 2000)
    turn = turn_of(schedule, number)
    begin = turn[0] * schedule.every - schedule.window
    newest = str(max(1, round(begin * TICKS_PER_SECOND)))

    pieces = [piece for each in turn if (piece := schedule.piece(each, oldest))]

    assert pieces[0].until == newest
    assert pieces[-1].since is None
    assert [piece.since for piece in pieces[:-1]] == [piece.until for piece in pieces[1:]]
    assert not any(is_after(piece.since, piece.until) for piece in pieces if piece.since and piece.until)
    action = str(max(1, int(place * int(newest))))
    assert sum(piece.covers(action) for piece in pieces) == (action != newest)
    assert not any(piece.covers(shift(newest, ticks)) for piece in pieces for ticks in (0, 1, 10**15))


@given(schedules, st.integers(0, 10**6))
def test_the_pieces_of_a_turn_are_alike(schedule: Schedule, number: int) -> None:
    """No round has more of the past to look at than another, and the oldest message lies in the last piece."""
    assume(2 <= schedule.pieces <= 500)
    turn = turn_of(schedule, number)
    newest = round((turn[0] * schedule.every - schedule.window) * TICKS_PER_SECOND)
    assume(newest > 10**9)
    oldest = newest // 3

    pieces = [piece for each in turn if (piece := schedule.piece(each, str(oldest)))]

    assert len(pieces) == schedule.pieces
    longest = (newest - oldest) // schedule.pieces + 1
    for piece in pieces:
        assert piece.until
        assert int(piece.until) - (int(piece.since) if piece.since else oldest) <= longest
    # Each piece is some ticks too long rather than too short, so a turn may pass the oldest message a little early.
    assert any(piece.covers(str(oldest)) for piece in pieces[-2:])


@example(SCHEDULE, 6 * 80_000, 6, "5", 0.5)
@example(SCHEDULE, 6 * 80_000 + 3, 6, "5", 0.5)
@example(SCHEDULE, 6 * 80_000 + 1, 6, None, 0.5)
@given(schedules, st.integers(0, 10**6), st.integers(1, 50), st.one_of(st.none(), timetokens), st.floats(0, 1))
def test_pieces_nobody_made_are_read_as_one(
    schedule: Schedule, number: int, count: int, oldest: str | None, place: float
) -> None:
    """Of each turn, where they lie side by side: all that lies in a piece, and nothing else, once."""
    missed = range(number, number + count)
    pieces = [piece for each in missed if (piece := schedule.piece(each, oldest))]

    stretches = schedule.stretches(missed, oldest)

    assert len(stretches) <= len({each // schedule.pieces for each in missed})
    newest = max((int(piece.until) for piece in pieces if piece.until), default=2)
    edges = [
        shift(edge, ticks) for piece in pieces for edge in (piece.since, piece.until) if edge for ticks in (-1, 0, 1)
    ]
    for action in [*edges, str(max(1, int(place * newest))), str(newest + 10**9)]:
        assert any(each.covers(action) for each in stretches) == any(piece.covers(action) for piece in pieces)


def test_a_channel_without_a_past_has_one_piece() -> None:
    """A message of today is older than what the turn cuts up; who tells no age is looked at as a whole."""
    turn = turn_of(SCHEDULE, 500_000)
    end = shift("0", round((turn[0] * HOUR - DAY) * TICKS_PER_SECOND))

    for oldest in (None, end, shift(end, 1)):
        assert [SCHEDULE.piece(number, oldest) for number in turn] == [Range(None, end), *[None] * 5]


def test_a_round_begins_with_its_hour() -> None:
    """By PubNub's clock."""
    assert SCHEDULE.round_at(from_seconds(1_760_000_400)) == 1_760_000_400 // 3600
    assert SCHEDULE.round_at(from_seconds(3600 * 7)) == 7
    assert SCHEDULE.round_at(from_seconds(3600 * 7 - 1)) == 6


class Going:
    """Rounds whose hours pass when a test says so."""

    def __init__(self, bench: Bench, schedule: Schedule = SCHEDULE, tries: int | None = None) -> None:
        self.repaying = Repaying(bench, 0.1, tries)
        self.schedule = schedule
        # A turn that is over: none of its rounds lies ahead of the emulator's clock.
        self.turn = turn_of(schedule, schedule.round_at(from_seconds(time.time())) - schedule.pieces)
        self.number = self.turn[0]
        parts = self.repaying
        self.rounds = Rounds(
            parts.reconcile, parts.debts, parts.entries, parts.applier, bench.marks, self.now, schedule
        )

    async def now(self) -> str:
        """Return a time in the middle of the round."""
        return from_seconds((self.number + 0.5) * self.schedule.every)


def act(bench: Bench, seconds_ago: float, channel: str = "room", uuid: str = "ana") -> Added:
    """Let somebody have reacted, at once, to a message of so long ago, without anybody hearing of it."""
    message = from_seconds(time.time() - seconds_ago)
    at = shift(message, 10)
    bench.emulator.state.add(channel, message, "reaction", "👍", uuid, published=False, at=int(at))
    return Added(Identity(channel, message, "reaction", "👍", uuid), at, at)


async def test_an_addition_never_published_is_found_by_the_window(bench: Bench) -> None:
    """In each round, however many channels there are; older ones are left to their piece."""
    channels = [f"channel{number}" for number in range(12)]
    for channel in channels:
        act(bench, 2 * HOUR, channel)
    old = act(bench, 40 * DAY, "channel0")
    await bench.marks.remember([*channels, "empty"])
    going = Going(bench)
    going.number += 1  # the first piece of a channel Redis knows nothing of is its whole past

    await going.rounds.once()

    counts = await bench.counts()
    truth = bench.emulator.truth()
    del truth["channel0"][old.identity.message_timetoken]
    assert counts == truth


async def test_a_lost_removal_is_found_by_the_piece_it_lies_in(bench: Bench) -> None:
    """Of a month ago; in that round of the turn, and in no other."""
    added = [act(bench, days * DAY, uuid=f"user{days}") for days in range(2, 31)]
    await bench.applier.apply(added, Origin.BACKFILL, bench.clock())
    await bench.marks.remember(["room"])
    lost = added[17]
    bench.emulator.state.remove(
        "room", lost.identity.message_timetoken, int(lost.action_timetoken), lost.identity.uuid, published=False
    )
    going = Going(bench)
    healed, covering = [], []

    for number in going.turn:
        going.number = number
        piece = going.schedule.piece(number, added[-1].identity.message_timetoken)
        if piece and piece.covers(lost.action_timetoken):
            covering.append(number)
        await going.rounds.once()
        if await bench.counts() == bench.emulator.truth():
            healed.append(number)

    assert len(covering) == 1
    assert healed == [each for each in going.turn if each >= covering[0]]


async def test_lost_removals_of_any_age_are_found_within_a_turn(bench: Bench) -> None:
    """From hours ago to years ago."""
    ages = [3 * HOUR, 20 * HOUR, 26 * HOUR, 2 * DAY, 9 * DAY, 100 * DAY, 1000 * DAY]
    kept = [act(bench, age * factor, uuid="ben") for age in ages for factor in (0.97, 1.03)]
    lost = [act(bench, age) for age in ages]
    await bench.applier.apply([*kept, *lost], Origin.BACKFILL, bench.clock())
    await bench.marks.remember(["room"])
    for added in lost:
        bench.emulator.state.remove(
            "room", added.identity.message_timetoken, int(added.action_timetoken), "ana", published=False
        )
    going = Going(bench)

    for number in going.turn:
        going.number = number
        await going.rounds.once()

    assert await bench.counts() == bench.emulator.truth()


async def test_pieces_nobody_looked_at_are_made_up_for(bench: Bench) -> None:
    """A round took too long, or no worker was up: the next one looks at their pieces, too."""
    added = [act(bench, days * DAY, uuid=f"user{days}") for days in range(2, 31)]
    await bench.applier.apply(added, Origin.BACKFILL, bench.clock())
    await bench.marks.remember(["room"])
    going = Going(bench)
    await going.rounds.once()
    lost = added[17]
    bench.emulator.state.remove(
        "room", lost.identity.message_timetoken, int(lost.action_timetoken), lost.identity.uuid, published=False
    )

    going.number = going.turn[-1]
    await going.rounds.once()

    assert await bench.counts() == bench.emulator.truth()


async def test_a_round_is_made_once(bench: Bench) -> None:
    """By whichever worker is quicker; one that was cut off is no round."""
    act(bench, HOUR)
    await bench.marks.remember(["room"])
    one, other = Going(bench), Going(bench)
    one.repaying.gate.clear()
    cut_off = asyncio.create_task(one.rounds.once())
    await wait_until(lambda: bool(one.repaying.asked_at))
    cut_off.cancel()
    await asyncio.gather(cut_off, return_exceptions=True)

    await other.rounds.once()
    assert await bench.counts() == bench.emulator.truth()
    asked = bench.emulator.requests["actions"]
    await one.rounds.once()
    assert bench.emulator.requests["actions"] == asked

    other.number += 1
    one.repaying.gate.set()
    await other.rounds.once()
    assert bench.emulator.requests["actions"] > asked


async def test_longer_periods_are_no_end_of_rounds(bench: Bench) -> None:
    """Whoever looks around less often than before still does."""
    await bench.marks.remember(["room"])
    await Going(bench, Schedule(every=60, window=DAY, full=6 * HOUR)).rounds.once()
    act(bench, HOUR)

    going = Going(bench)
    going.number += 1  # in that hour a round was made
    await going.rounds.once()

    assert await bench.counts() == bench.emulator.truth()


async def test_a_channel_that_owes_is_nudged(bench: Bench) -> None:
    """Of a worker that is gone: nobody here has noted it."""
    act(bench, HOUR)
    act(bench, HOUR, "hall")
    await bench.marks.remember(["room", "hall"])
    going = Going(bench)
    async with running(going.repaying):
        await bench.marks.owe(["room"], Gap.OVERFLOW)

        await going.rounds.once()

        assert going.repaying.debts._timers.keys() | going.repaying.debts._queued <= {"room"}
        await going.repaying.is_repaid("room")


async def test_a_nudge_does_not_put_off_who_waits_already(bench: Bench) -> None:
    """Or a round would keep a channel waiting for ever."""
    repaying = Repaying(bench, 60)
    repaying.debts.note(["room"])
    [before] = repaying.debts._timers.values()

    repaying.debts.nudge(["room"])

    [after] = repaying.debts._timers.values()
    assert after is before
    after.cancel()


async def test_a_refused_channel_holds_up_no_other(bench: Bench) -> None:
    """Nor do more of them than are looked at side by side."""
    refused = [f"a{number}" for number in range(9)]
    for channel in [*refused, "room"]:
        act(bench, HOUR, channel)
    await bench.marks.remember([*refused, "room"])
    bench.emulator.state.refuse(refused)

    await asyncio.wait_for(Going(bench).rounds.once(), 20)

    assert set(await bench.counts()) == {"room"}


async def test_a_broken_list_keeps_no_round_from_its_end(bench: Bench) -> None:
    """Nor do more of them than are looked at side by side; they are owed, and looked at again by those who repay."""
    broken = [f"a{number}" for number in range(9)]
    for channel in [*broken, "room"]:
        act(bench, HOUR, channel)
    await bench.marks.remember([*broken, "room"])

    def odd(channel: str, _: Window) -> Page | None:
        if channel in broken:
            raise RefusedError(html_reply(500, "Internal Server Error"))
        return None

    answer_oddly(bench, odd)
    going = Going(bench, tries=3)

    await asyncio.wait_for(going.rounds.once(), 20)

    assert set(await bench.counts()) == {"room"}
    assert await bench.marks.covered() == await going.now()
    assert {*await bench.marks.debts([*broken, "room"])} == {*broken}
    assert all([set(await bench.marks.owed(channel)) == {Gap.UNPROVEN} for channel in broken])
    assert {*broken} <= going.repaying.debts._timers.keys() | going.repaying.debts._queued
    for timer in going.repaying.debts._timers.values():
        timer.cancel()


@pytest.mark.parametrize("operations", [["time"], ["actions"], ["time", "actions"]])
async def test_an_outage_is_waited_out(bench: Bench, monkeypatch: pytest.MonkeyPatch, operations: list[str]) -> None:
    """The round is made when PubNub answers again."""
    monkeypatch.setattr("worker.rounds.RETRY_SECONDS", 0.02)
    act(bench, HOUR)
    await bench.marks.remember(["room"])
    bench.emulator.state.set_outage("server_error", operations)
    going = asyncio.create_task(Going(bench).rounds.once())

    await wait_until(lambda: sum(bench.emulator.requests[operation] for operation in operations) > 3)
    assert not going.done()
    bench.emulator.state.set_outage(None)
    await asyncio.wait_for(going, 10)

    assert await bench.counts() == bench.emulator.truth()
