"""What a list proves."""

import random

import pytest

from tests.histories import ANA, BEN, at
from worker.domain.position import Range, order
from worker.domain.reconciliation import (
    Candidate,
    Coverage,
    EntryKey,
    Limit,
    SeenSet,
    Verdict,
    all_lie_in,
    judge,
)


def called(*places: EntryKey) -> SeenSet:
    """Return a seen these were entered in, one after the other."""
    seen = SeenSet()
    for place in places:
        seen.add([place])
    seen.close()
    return seen


def test_whoever_is_not_listed_is_missing() -> None:
    """Entered twice counts once; a stranger is neither entered nor missing."""
    seen = called(("1", "a", "10"), ("1", "b", "11"), ("1", "a", "10"))

    seen.mark_seen([("1", "a", "10"), ("1", "c", "12")])

    assert (len(seen), seen.unseen) == (2, 1)
    places = [("1", "b", "11"), ("1", "a", "10"), ("1", "c", "12")]
    assert seen.are_unseen(places) == [True, False, False]
    assert seen.has(places) == [True, True, False]


def test_who_has_answered_is_known_at_once() -> None:
    """Whatever is asked first; and an answer may come after a question, and twice."""
    seen = called(("1", "a", "10"), ("1", "b", "11"))
    assert seen.unseen == 2

    seen.mark_seen([("1", "a", "10")])
    assert seen.are_unseen([("1", "a", "10"), ("1", "b", "11")]) == [False, True]

    seen.mark_seen([("1", "b", "11")] * 2)
    assert seen.unseen == 0


def test_the_same_user_with_another_action_is_another_entry() -> None:
    """The action timetoken is part of who is called."""
    seen = called(("1", "a", "10"))

    seen.mark_seen([("1", "a", "12")])

    assert not any(seen.has([("1", "a", "12")]))
    assert seen.unseen == 1


def test_an_empty_roll_misses_nobody() -> None:
    """Whoever answers it."""
    seen = called()

    seen.mark_seen([("1", "a", "10")])

    assert (len(seen), seen.unseen, seen.has([("1", "a", "10")])) == (0, 0, [False])


@pytest.mark.parametrize("kept", [1, 700, 1 << 16])
def test_a_long_roll_is_called_rightly(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever answers, answers for himself alone, however many answers are noted together."""
    monkeypatch.setattr("worker.domain.reconciliation.ANSWERS_KEPT", kept)
    choose = random.Random(1)
    places = [(str(number), "f", str(number * 7)) for number in range(20_000)]
    listed = [place for place in places if choose.random() < 0.9]
    strangers = [(str(number), "g", str(number * 7)) for number in range(5_000)]
    seen = called(*places)

    said = [*listed, *strangers]
    choose.shuffle(said)
    for start in range(0, len(said), 100):
        seen.mark_seen(said[start : start + 100])

    unseen = {
        place
        for place, is_missing in zip(places, seen.are_unseen(places), strict=True)
        if is_missing
    }
    assert unseen == set(places) - set(listed)
    assert seen.unseen == len(unseen)
    assert seen.has(places) == [True] * len(places)
    assert not any(seen.has(strangers) + seen.are_unseen(strangers))


def test_answers_wait_for_a_while_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten are noted together: until then they are kept, and then no more."""
    monkeypatch.setattr("worker.domain.reconciliation.ANSWERS_KEPT", 10)
    seen = called(("1", "a", "10"))

    kept = []
    for number in range(12):
        seen.mark_seen([("1", "a", str(number))])
        kept.append(len(seen._said))

    assert kept == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]


@pytest.mark.parametrize(
    ("since", "until", "lie_in"),
    [
        (None, None, True),
        (2, 5, True),
        (None, 5, True),
        (2, None, True),
        (3, 5, False),
        (2, 4, False),
    ],
)
def test_many_are_held_against_a_range_at_once(
    since: int | None, until: int | None, *, lie_in: bool
) -> None:
    """From the older bound, inclusive, to the newer one, exclusive; nobody lies in every range."""
    range = Range(at(since) if since else None, at(until) if until else None)

    assert all_lie_in(range, [at(3), at(2), at(4)]) is lie_in
    assert all_lie_in(range, [])


def test_those_of_several_lengths_are_not_held_against_a_range_as_texts() -> None:
    """``"9"`` is no newer than ``"10"``: then each is to be asked about."""
    assert not all_lie_in(Range("9", "11"), ["9", "10"])
    assert all_lie_in(Range(), ["9", "10"])


CANDIDATE = Candidate(ANA, at(3))


@pytest.mark.parametrize(
    ("items", "verdict"),
    [
        ([1, 2, 4], Verdict.ABSENT),
        ([3], Verdict.PRESENT),
        ([1, 3, 4], Verdict.PRESENT),
        ([1, 2], None),
        ([4, 5], None),
        ([], None),
    ],
)
def test_absence_is_proven_between_two_items(items: list[int], verdict: Verdict | None) -> None:
    """Above the newest and below the oldest of an answer there may be anything."""
    listed = [CANDIDATE if place == 3 else Candidate(BEN, at(place)) for place in items]

    found = judge(listed, [each.action_timetoken for each in listed], [CANDIDATE])

    assert found == ({CANDIDATE: verdict} if verdict else {})


@pytest.mark.parametrize(("items", "is_proven"), [([3, 4], False), ([2, 3], True)])
def test_a_page_may_end_between_two_of_one_timetoken(items: list[int], *, is_proven: bool) -> None:
    """At its older end only: there an item of the same timetoken is no bracket."""
    listed = [Candidate(BEN, at(place)) for place in items]

    assert bool(judge(listed, [each.action_timetoken for each in listed], [CANDIDATE])) is is_proven


def test_digits_are_counted_before_they_are_compared() -> None:
    """The candidate at place 0 has a digit less than its neighbours."""
    candidate = Candidate(ANA, at(0))
    around = [at(-1), at(1)]

    assert judge([], around, [candidate]) == {candidate: Verdict.ABSENT}


def test_edges_are_counted_upwards() -> None:
    """The nearest edge that is newer is the first."""
    coverage = Coverage([at(9), at(6), at(3)])

    assert [coverage.above(at(3), steps) for steps in (1, 2, 3)] == [at(6), at(9), None]
    assert coverage.above(at(4), 1) == at(6)
    assert coverage.above(at(2), 1) == at(3)
    assert coverage.above(at(9), 1) is None


def test_a_look_begins_with_nothing() -> None:
    """Nothing listed, nothing asked, and nothing unseen."""
    assert (Coverage().listed, Coverage().requests, Coverage().has_seen(at(1))) == (0, 0, True)


def test_what_was_not_seen_proves_nothing() -> None:
    """From the older bound, inclusive, to the newer one, exclusive."""
    coverage = Coverage(unseen=[Range(at(2), at(4))])

    assert [coverage.has_seen(at(place)) for place in (1, 2, 3, 4)] == [True, False, False, True]


@pytest.mark.parametrize(
    ("losses", "entries", "is_forbidden"),
    [
        (20, 20, False),
        (21, 21, True),
        (21, 105, False),
        (22, 105, True),
        (3, 3, False),
        (0, 0, False),
    ],
)
def test_a_mass_loss_is_forbidden(losses: int, entries: int, is_forbidden: bool) -> None:
    """More than the floor and more than the limit: a channel of three must still heal."""
    assert Limit(0.2, 20).forbids(losses, entries) is is_forbidden


def test_a_range_holds_its_older_end_only() -> None:
    """As PubNub's own `end` and `start`."""
    assert [place for place in range(6) if Range(at(2), at(4)).covers(at(place))] == [2, 3]
    assert all(Range().covers(at(place)) for place in range(6))
    assert sorted([at(1), at(0)], key=order) == [at(0), at(1)]
