"""What a follower does, step by step: without Redis, and on a clock of its own."""

from typing import Any, Final

import pytest

from reaction_tally.changes import (
    AWAY_SECONDS,
    COMPARE_SECONDS,
    FIRST_PAUSE,
    HEADS,
    LONGEST_PAUSE,
    Follower,
    Listen,
    Pause,
    Subscribe,
    advance,
)
from reaction_tally.errors import NotPermittedError, RedisUnavailableError, TallyReadError
from reaction_tally.following import ENTRIES, Following, Item, Reading
from reaction_tally.keys import SCHEMA, Keys
from reaction_tally.operations import Group, Operations, Request
from reaction_tally.values import Change

KEYS: Final = Keys()
CONFIRMED: Final = {"type": "subscribe", "data": 1}
HINT: Final = {"type": "message", "data": b"room 5-0"}
AWAY: Final = RedisUnavailableError("Redis does not answer")


class Play:
    """Plays Redis and the clock for a follower of one channel whose head is 0-0."""

    def __init__(self) -> None:
        self.now = 0.0
        operations = Operations("tally", "Redis")
        following = Following(KEYS, {"room": "0-0"}, is_open=False)
        follower = Follower(operations, following, clock=lambda: self.now)
        self._steps = follower.steps()
        self.step: Any = next(self._steps)

    def answer(self, answer: Any = None, *, seconds: float = 0) -> None:
        """Answer the step, after so long."""
        self.now += seconds
        self.step = advance(self._steps, answer)

    def compare(self, *, seconds: float = 0) -> None:
        """Answer the requests of a comparison."""
        assert self.step == Request([("HGET", KEYS.meta, "schema")])
        self.answer([SCHEMA])
        assert self.step == Group([KEYS.head("room")], HEADS)
        self.answer([[[KEYS.head("room")]]])
        assert self.step == Request([("MGET", KEYS.head("room"))])
        self.answer([["0-0"]], seconds=seconds)

    def begin(self) -> None:
        """Answer until the follower waits for hints."""
        assert self.step == Subscribe(is_new=True)
        self.answer()
        assert self.step == Listen(COMPARE_SECONDS)
        self.answer([CONFIRMED])
        self.compare()
        assert self.step == Subscribe(is_new=False)
        self.answer()


@pytest.fixture
def play() -> Play:
    """Begin a play."""
    return Play()


@pytest.mark.parametrize("is_hint", [True, False])
def test_what_nobody_wants_is_passed_over(is_hint: bool) -> None:
    """A channel that is wanted later is read from where it was passed over."""
    wanted: set[str] = set()
    following = Following(
        KEYS, {"room": "0-0"}, is_open=True, is_wanted=lambda channel: channel in wanted
    )
    if is_hint:
        following.note_hint("room 5-0")
    else:
        following.note_heads({"room": "5-0"})
    assert not following.is_behind

    wanted.add("room")
    following.note_hint("room 6-0")

    (reading,) = following.readings()
    assert reading.position == "5-0"


def test_a_change_after_what_was_passed_over_has_no_older_position() -> None:
    """The newest entry that was read before it has no change: it would be read anew from there."""
    wanted = {"room"}
    following = Following(
        KEYS, {"room": "0-0"}, is_open=True, is_wanted=lambda channel: channel in wanted
    )

    def read(head: str, after: str, *changes: str) -> list[Item]:
        following.note_hint(f"room {head}")
        (reading,) = following.readings()
        numbered = [word for pair in enumerate(changes, 1) for word in map(str, pair)]
        fields = ["after", after, "origin", "live", *numbered]
        reading.take([head, [(head, fields)], head])
        return following.finish(reading)

    assert read("1-0", "0-0") == []
    wanted.clear()
    following.note_hint("room 5-0")
    wanted.add("room")
    items = read("6-0", "5-0", "added applied 7 1 9 t:a:ana", "added applied 8 1 9 t:b:ana")

    assert [item.position for item in items] == ["5-0", "6-0"]


def test_a_head_that_is_none_moves_nothing() -> None:
    """Another program wrote it."""
    following = Following(KEYS, {"room": "0-0"}, is_open=True, is_wanted=lambda _: False)

    following.note_heads({"room": "canary"})
    following.note_hint("room 6-0")

    assert following.readings() == []
    following.note_heads({"room": "6-0"})
    assert not following.is_behind


def test_it_subscribes_before_it_compares(play: Play) -> None:
    """So what changes after the comparison has a hint."""
    play.begin()
    assert play.step == Listen(COMPARE_SECONDS)


def test_an_answered_try_keeps_the_subscription(play: Play) -> None:
    """It is tried with each comparison. Its answer asks for no comparison."""
    play.begin()
    for _ in range(3):
        play.answer([CONFIRMED], seconds=1)
        assert play.step == Listen(COMPARE_SECONDS - 1)
        play.answer([], seconds=COMPARE_SECONDS - 1)
        play.compare()
        assert play.step == Subscribe(is_new=False)
        play.answer()


def test_a_silent_subscription_is_replaced(play: Play) -> None:
    """A connection may die without a sign. Until then comparisons go on."""
    play.begin()
    play.answer([], seconds=COMPARE_SECONDS)
    play.compare()
    assert play.step == Pause(FIRST_PAUSE)
    play.answer()
    play.begin()


def test_a_hint_shows_that_the_subscription_is_alive(play: Play) -> None:
    """The answer may wait behind very many of them."""
    play.begin()
    play.answer([HINT | {"data": b"hall 5-0"}], seconds=COMPARE_SECONDS)
    play.compare()
    assert play.step == Subscribe(is_new=False)


def test_a_subscription_that_came_back_by_itself_is_compared(play: Play) -> None:
    """redis-py opens a connection again. Hints were lost in between."""
    play.begin()
    play.answer([CONFIRMED, CONFIRMED])
    play.compare()


@pytest.mark.parametrize("error", [NotPermittedError("no"), TallyReadError("unknown command")])
def test_without_a_subscription_it_compares(play: Play, error: TallyReadError) -> None:
    """A user may not subscribe, or a proxy does not know how."""
    play.answer()
    play.answer(error)
    for _ in range(3):
        play.compare()
        assert play.step == Pause(COMPARE_SECONDS)
        play.answer(seconds=COMPARE_SECONDS)


def test_a_long_comparison_is_made_seldom(play: Play) -> None:
    """Of very many channels: it takes no more than a tenth of the time."""
    play.answer()
    play.answer([CONFIRMED])
    play.compare(seconds=2)
    play.answer()
    assert play.step == Listen(20)


def test_pauses_grow_until_redis_has_been_away_for_too_long(play: Play) -> None:
    """Then the error is raised."""
    pauses: list[float] = []
    while sum(pauses) < AWAY_SECONDS:
        assert play.step == Subscribe(is_new=True)
        play.answer(AWAY)
        pauses.append(play.step.seconds)
        play.answer(seconds=play.step.seconds)
    with pytest.raises(RedisUnavailableError):
        play.answer(AWAY)

    assert pauses[:3] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert max(pauses) == LONGEST_PAUSE


def test_an_answer_ends_the_absence(play: Play) -> None:
    """The next one is counted anew."""
    for _ in range(3):
        play.begin()
        play.answer(AWAY)
        assert play.step == Pause(FIRST_PAUSE)
        play.answer(seconds=AWAY_SECONDS)


def entries(first: int, count: int = ENTRIES) -> list[Any]:
    """Return entries of a journal; each counts one more."""
    return [
        [f"{at}-0", ["after", f"{at - 1}-0", "origin", "live", "0", _change(at)]]
        for at in range(first, first + count)
    ]


def _change(at: int) -> str:
    return f"added applied 17 {at} 1234 reaction:x:user-{at}"


def test_who_writes_all_the_time_keeps_nobody_from_the_end() -> None:
    """The goal is the head at the beginning."""
    reading = Reading(KEYS, "room", "0-0")
    for number in range(2):
        head = 150 + ENTRIES * number
        reading.take([f"{head}-0", entries(1 + ENTRIES * number), f"{head + 1}-0"])

    (change,) = reading.items("0-0")
    assert reading.is_done
    assert isinstance(change, Change)
    assert (change.count, change.position) == (2 * ENTRIES, f"{2 * ENTRIES}-0")


def test_a_head_that_moves_while_it_is_read_proves_nothing() -> None:
    """Neither that the end is reached, nor that the position is gone."""
    reading = Reading(KEYS, "room", "3-0")
    are_done = []
    for heads in (("8-0", "9-0"), ("9-0", "9-0")):
        reading.take([heads[0], [], heads[1]])
        are_done.append(reading.is_done)

    assert are_done == [False, True]
    assert [item.position for item in reading.items("3-0")] == ["9-0"]
