"""The faults of delivery, one by one, without HTTP."""

import json
from typing import Any

import pytest

from tests.emulator.clients import MESSAGE, ROOM, follow, keyset, present
from worker.emulator import Cursor, State, Subscription

SEEDS = range(10)
BURSTS = range(30)


def say(state: State, *texts: object) -> None:
    """Publish ordinary messages."""
    for text in texts:
        state.publish("room", text, "ana")


def payloads(answers: list[list[dict[str, Any]]]) -> list[list[Any]]:
    """Return the payloads, answer by answer, without the empty answers."""
    return [[message["d"] for message in answer] for answer in answers if answer]


def test_rates_of_zero_leave_delivery_exact() -> None:
    """Each message comes once, in order. The last one's time is the cursor."""
    state, clock = keyset(duplicate=0, reorder=0, late=0, ahead=0, rewind=0, lost=0)
    cursor = present(state)
    say(state, *range(50))
    (messages, *rest) = follow(state, clock, cursor)
    assert [message["d"] for message in messages] == list(range(50))
    assert not any(rest)
    answer = state.poll(ROOM, cursor)
    assert int(messages[-1]["p"]["t"]) == answer.cursor.timetoken
    assert not state.faults.struck


def test_a_duplicate_comes_in_one_answer_or_in_a_later_one() -> None:
    """Both happen. Every message comes exactly twice."""
    state, clock = keyset(duplicate=1.0)
    cursor = present(state)
    say(state, *range(40))
    answers = payloads(follow(state, clock, cursor))
    at_once = [text for text in range(40) if answers[0].count(text) == 2]
    again = [text for answer in answers[1:] for text in answer]
    assert at_once
    assert again
    assert sorted(at_once + again) == list(range(40))


def test_a_reordered_answer_is_not_sorted() -> None:
    """It has the same messages."""
    state, clock = keyset(reorder=1.0)
    cursor = present(state)
    say(state, *range(20))
    (answer,) = payloads(follow(state, clock, cursor))
    assert answer != sorted(answer) == list(range(20))


def test_a_late_event_comes_behind_the_cursor() -> None:
    """It was published before the cursor, and comes within a second."""
    state, clock = keyset(late=1.0)
    cursor = present(state)
    say(state, "late")
    state.faults.replace({})
    say(state, "punctual")
    first = state.poll(ROOM, cursor)
    assert [json.loads(message)["d"] for message in first.messages] == ["punctual"]

    clock.tick()
    second = state.poll(ROOM, first.cursor)
    (message,) = map(json.loads, second.messages)
    assert message["d"] == "late"
    assert int(message["p"]["t"]) < first.cursor.timetoken < second.cursor.timetoken


def test_an_event_ahead_is_later_than_its_cursor() -> None:
    """It comes once."""
    state, clock = keyset(ahead=1.0)
    cursor = present(state)
    say(state, "ahead")
    answer = state.poll(ROOM, cursor)
    assert int(json.loads(answer.messages[0])["p"]["t"]) > answer.cursor.timetoken
    assert len(payloads(follow(state, clock, cursor))) == 1


def test_a_cursor_gone_back_repeats_messages() -> None:
    """It goes back once, by at most 64 ms, in another region."""
    state, clock = keyset(rewind=1.0)
    cursor = present(state)
    say(state, *range(5))
    answer = state.poll(ROOM, cursor)
    newest = int(json.loads(answer.messages[-1])["p"]["t"])
    assert newest - 640_000 <= answer.cursor.timetoken < newest
    assert answer.cursor.region != cursor.region
    assert payloads(follow(state, clock, cursor)) == [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]


def test_a_lost_event_never_comes() -> None:
    """It counts as published, and its action is in the truth."""
    state, clock = keyset(lost=1.0)
    cursor = present(state)
    state.add("room", MESSAGE, "t", "v", "u")
    assert payloads(follow(state, clock, cursor)) == []
    assert (state.published, state.truth()) == (1, {"room": {MESSAGE: {"t": {"v": 1}}}})


@pytest.mark.parametrize("seed", SEEDS)
def test_repeated_shuffled_and_late_messages_all_arrive(seed: int) -> None:
    """A subscriber that keeps polling gets every message."""
    state, clock = keyset(seed=seed, duplicate=0.3, reorder=0.3, late=0.2, ahead=0.2, rewind=0.2)
    cursor = present(state)
    received = set()
    for burst in BURSTS:
        say(state, *range(burst * 60, burst * 60 + 60))
        clock.tick(0.1)
        answer = state.poll(ROOM, cursor)
        cursor = answer.cursor
        received |= {json.loads(message)["d"] for message in answer.messages}
    received |= {text for answer in payloads(follow(state, clock, cursor)) for text in answer}
    assert received == set(range(60 * len(BURSTS)))


def test_a_seed_repeats_its_faults() -> None:
    """The answers are equal byte for byte. Another seed gives others."""

    def history(seed: int) -> list[bytes]:
        state, clock = keyset(
            seed=seed, duplicate=0.3, reorder=0.3, late=0.3, ahead=0.3, rewind=0.3, lost=0.3
        )
        cursor, bodies = present(state), []
        for n in range(50):
            state.add("room", MESSAGE, "t", f"v{n}", "u")
            answer = state.poll(ROOM, cursor)
            cursor = answer.cursor
            bodies.append(answer.body())
            clock.tick(0.05)
        return bodies

    assert history(7) == history(7) != history(8)


def test_any_cursor_is_served() -> None:
    """An old one gets the cached messages. One of the future waits."""
    state, clock = keyset()
    say(state, "hello")
    assert len(state.poll(ROOM, Cursor(1, 3)).messages) == 1
    future = Cursor((int(clock.seconds) + 60) * 10_000_000, 3)
    assert state.poll(ROOM, future).cursor == future
    assert state.poll(Subscription(("other",)), Cursor(1)).messages == ()
