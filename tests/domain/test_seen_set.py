"""The set of live entries tells which of them the list has not shown."""

import random
from itertools import compress

import pytest

from worker.domain.seen_set import EntryKey, SeenSet


def closed(*entries: EntryKey) -> SeenSet:
    """Return a closed set of these entries, added one after the other."""
    seen = SeenSet()
    for entry in entries:
        seen.add([entry])
    seen.close()
    return seen


def test_an_entry_not_listed_is_unseen() -> None:
    """An entry added twice counts once. One that was never added is not unseen.

    The action timetoken is a part of an entry.
    """
    seen = closed(("1", "a", "10"), ("1", "b", "11"), ("1", "a", "10"))

    seen.mark_seen([("1", "a", "10"), ("1", "c", "12"), ("1", "b", "12")])

    assert (len(seen), seen.unseen) == (2, 1)
    entries = [("1", "b", "11"), ("1", "a", "10"), ("1", "c", "12")]
    assert seen.are_unseen(entries) == [True, False, False]
    assert seen.has(entries) == [True, True, False]


def test_a_mark_shows_at_once() -> None:
    """In whatever order marks and questions come; a mark may come twice."""
    seen = closed(("1", "a", "10"), ("1", "b", "11"))
    assert seen.unseen == 2

    seen.mark_seen([("1", "a", "10")])
    assert seen.are_unseen([("1", "a", "10"), ("1", "b", "11")]) == [False, True]

    seen.mark_seen([("1", "b", "11")] * 2)
    assert seen.unseen == 0


def test_an_empty_set_has_nothing_unseen() -> None:
    """Whatever the list shows."""
    seen = closed()

    seen.mark_seen([("1", "a", "10")])

    assert (len(seen), seen.unseen, seen.has([("1", "a", "10")])) == (0, 0, [False])


@pytest.mark.parametrize("pending", [1, 700, 1 << 16])
def test_a_large_set_is_marked_rightly(pending: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each mark is of one entry alone, however many are made together."""
    monkeypatch.setattr("worker.domain.seen_set.MAX_PENDING", pending)
    choose = random.Random(1)
    entries = [(str(number), "f", str(number * 7)) for number in range(20_000)]
    listed = [entry for entry in entries if choose.random() < 0.9]
    others = [(str(number), "g", str(number * 7)) for number in range(5_000)]
    seen = closed(*entries)

    shown = [*listed, *others]
    choose.shuffle(shown)
    for start in range(0, len(shown), 100):
        seen.mark_seen(shown[start : start + 100])

    unseen = set(compress(entries, seen.are_unseen(entries)))
    assert unseen == set(entries) - set(listed)
    assert seen.unseen == len(unseen)
    assert seen.has(entries) == [True] * len(entries)
    assert not any(seen.has(others) + seen.are_unseen(others))


def test_marks_wait_for_ten_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until there are ten they are kept, and then no more."""
    monkeypatch.setattr("worker.domain.seen_set.MAX_PENDING", 10)
    seen = closed(("1", "a", "10"))

    waiting = []
    for number in range(12):
        seen.mark_seen([("1", "a", str(number))])
        waiting.append(len(seen._pending))

    assert waiting == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]
