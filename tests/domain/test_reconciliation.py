"""What a list proves."""

import pytest

from tests.histories import ANA, BEN, at
from worker.domain.position import Range, order
from worker.domain.reconciliation import Candidate, Coverage, Limit, Verdict, judge

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


def test_what_was_not_seen_proves_nothing() -> None:
    """From the older bound, inclusive, to the newer one, exclusive."""
    assert (Coverage().listed, Coverage().requests, Coverage().has_seen(at(1))) == (0, 0, True)
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
