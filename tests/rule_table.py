"""The table of the rule: a history, what each event does, and the entry at its end.

The pure rule and the script in Redis are fed the same rows.
"""

from tests.histories import added, at, pruned, removed, restored
from worker.domain.action import Event
from worker.domain.entry import ABSENT, Entry, Outcome

A, D, S = Outcome.APPLIED, Outcome.DUPLICATE, Outcome.SUPERSEDED
L, E, U = Outcome.LATE, Outcome.EARLY, Outcome.UNMATCHED


def live(place: int, removed: int | None = None) -> Entry:
    """Return an entry that is live since a place; a removal may lie before it."""
    return Entry(at(place), None if removed is None else at(removed))


def gone(place: int) -> Entry:
    """Return an entry that is removed through a place."""
    return Entry(None, at(place))


ROWS: dict[str, tuple[list[Event], list[Outcome], Entry]] = {
    "an addition is counted": ([added(1)], [A], live(1)),
    "an addition told twice counts once": ([added(1), added(1)], [A, D], live(1)),
    "a removal ends it": ([added(1), removed(1)], [A, A], gone(1)),
    "a removal told twice counts once": ([added(1), removed(1), removed(1)], [A, A, D], gone(1)),
    "a removal that arrives first still wins": ([removed(1), added(1)], [E, L], gone(1)),
    "a newer addition takes the place of a live one": ([added(1), added(2)], [A, S], live(2)),
    "an older addition changes nothing": ([added(2), added(1)], [A, L], live(2)),
    "a re-add after a removal counts": ([added(1), removed(1), added(2)], [A, A, A], live(2, 1)),
    "the removal of an older action leaves the newer": ([added(2), removed(1)], [A, E], live(2, 1)),
    "a removal ends everything older": ([added(1), removed(2)], [A, A], gone(2)),
    "removals are remembered by the newest": ([removed(2), removed(1)], [E, D], gone(2)),
    "an addition at the newest removal is over": ([removed(2), added(2)], [E, L], gone(2)),
    "fewer digits are older": ([added(0), added(1)], [A, S], live(1)),
    "more digits are newer": ([removed(0), added(1)], [E, A], live(1, 0)),
    "a pruned action leaves no tombstone": ([added(1), pruned(1)], [A, A], ABSENT),
    "a pruned action that was real comes back": (
        [added(1), pruned(1), added(1)],
        [A, A, A],
        live(1),
    ),
    "pruning needs the action it has seen": ([added(1), added(2), pruned(1)], [A, S, U], live(2)),
    "pruning needs a live action": ([removed(1), pruned(1)], [E, U], gone(1)),
    "pruning leaves older tombstones": ([removed(1), added(2), pruned(2)], [E, A, A], gone(1)),
    "a restored action forgets its removal": ([removed(1), restored(1, 1)], [E, A], live(1)),
    "an older action is restored, too": ([removed(2), restored(1, 2)], [E, A], live(1)),
    "restoring needs the removal it has seen": (
        [removed(1), removed(2), restored(1, 1)],
        [E, E, U],
        gone(2),
    ),
    "restoring needs a removal": ([restored(1, 1)], [U], ABSENT),
    "restoring needs nothing live": ([removed(1), added(2), restored(1, 1)], [E, A, U], live(2, 1)),
    "what no removal bars needs no restoring": ([removed(1), restored(2, 1)], [E, U], gone(1)),
}
