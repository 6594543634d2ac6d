"""The rule: what an event does to the entry of its identity. ``store/lua/apply.lua`` is its shadow.

``Added`` and ``Removed`` are a join: observed in any order, any number of times, split into any batches, they end in
the same entry. ``Pruned`` and ``Restored`` are not; each is a compare-and-set on what its proof has seen.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, assert_never

from worker.domain.action import Added, Event, Pruned, Removed, Restored
from worker.domain.position import Timetoken, is_after


class Outcome(StrEnum):
    """What an event did."""

    APPLIED = "applied"
    """The entry began or ceased to be live: a count changed."""
    SUPERSEDED = "superseded"
    """A newer addition took the place of the live one: a removal and a re-add were missed; the count stands."""
    DUPLICATE = "duplicate"
    """It was known already."""
    LATE = "late"
    """An addition that is over: removed, or superseded, before it arrived."""
    EARLY = "early"
    """A removal whose addition is yet to come, and will be late."""
    UNMATCHED = "unmatched"
    """An inference about an entry that is no longer as it was seen: nothing was done."""
    EXPIRED = "expired"
    """About a message older than the retention, which is no longer counted; the store's outcome, not the rule's."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The state of one identity."""

    live: Timetoken | None = None
    """The action timetoken that is counted."""
    removed_through: Timetoken | None = None
    """The newest action timetoken known to be removed: additions up to it are over."""

    @property
    def count(self) -> int:
        """What this entry adds to its tally: 1 while it is live, else 0."""
        return 0 if self.live is None else 1


ABSENT: Final = Entry()


def apply(entry: Entry, event: Event) -> tuple[Entry, Outcome]:
    """Return the entry after the event, and what the event did."""
    match event:
        case Added(action_timetoken=added):
            return _add(entry, added)
        case Removed(action_timetoken=removed):
            return _remove(entry, removed)
        case Pruned(action_timetoken=pruned):
            if entry.live != pruned:
                return entry, Outcome.UNMATCHED
            return replace(entry, live=None), Outcome.APPLIED
        case Restored(action_timetoken=restored, removed_through=barrier):
            if (
                entry.live is not None
                or entry.removed_through != barrier
                or is_after(restored, barrier)
            ):
                return entry, Outcome.UNMATCHED
            return Entry(live=restored), Outcome.APPLIED
        case _:
            assert_never(event)


def _add(entry: Entry, added: Timetoken) -> tuple[Entry, Outcome]:
    if entry.removed_through is not None and not is_after(added, entry.removed_through):
        return entry, Outcome.LATE
    if entry.live is None:
        return replace(entry, live=added), Outcome.APPLIED
    if entry.live == added:
        return entry, Outcome.DUPLICATE
    if is_after(entry.live, added):
        return entry, Outcome.LATE
    return replace(entry, live=added), Outcome.SUPERSEDED


def _remove(entry: Entry, removed: Timetoken) -> tuple[Entry, Outcome]:
    known = entry.removed_through is not None and not is_after(removed, entry.removed_through)
    through = entry.removed_through if known else removed
    if entry.live is not None and not is_after(entry.live, removed):
        return Entry(live=None, removed_through=through), Outcome.APPLIED
    return replace(entry, removed_through=through), Outcome.DUPLICATE if known else Outcome.EARLY
