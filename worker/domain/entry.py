"""The rule: what an event does to the entry of its identity.

The table in ``worker/README.md`` has a row for each ``return`` below.
``store/lua/apply.lua`` does the same inside Redis.
Tests feed the same histories to both.

``Added`` and ``Removed`` are a join.
In any order, any number of times, in any batches they end in the same entry.

``Pruned`` and ``Restored`` are no join.
Each changes an entry only if it still is as its proof saw it.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, assert_never

from worker.domain.action import Added, Event, Pruned, Removed, Restored
from worker.domain.position import Timetoken, is_after


class Outcome(StrEnum):
    """What an event did."""

    APPLIED = "applied"
    """A count changed: the entry began or ceased to be live."""
    SUPERSEDED = "superseded"
    """A newer addition replaced the live one. A removal was missed."""
    DUPLICATE = "duplicate"
    """The event was known already."""
    LATE = "late"
    """An addition arrived after its removal, or after a newer addition."""
    EARLY = "early"
    """A removal arrived before its addition, which will be late."""
    UNMATCHED = "unmatched"
    """An inference was too late: the entry has changed since its proof."""
    EXPIRED = "expired"
    """The message is older than the retention. The store says so, not the rule."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The state of one identity."""

    live: Timetoken | None = None
    """The action timetoken that is counted."""
    removed_through: Timetoken | None = None
    """The newest action timetoken known to be removed.

    Older actions of the identity are removed, too.
    """

    def has_removed(self, action_timetoken: Timetoken) -> bool:
        """Tell whether an action is known to be removed.

        It is, if its timetoken ≤ ``removed_through``.
        """
        newest = self.removed_through
        return newest is not None and not is_after(action_timetoken, newest)


ABSENT: Final = Entry()

Result = tuple[Entry, Outcome]


def apply(entry: Entry, event: Event) -> Result:
    """Apply an event to the entry of its identity.

    Returns:
        The entry after the event, and what the event did.
    """
    match event:
        case Added():
            return _add(entry, event.action_timetoken)
        case Removed():
            return _remove(entry, event.action_timetoken)
        case Pruned():
            return _prune(entry, event.action_timetoken)
        case Restored():
            return _restore(entry, event.action_timetoken, event.removed_through)
        case _:
            assert_never(event)


def _add(entry: Entry, added: Timetoken) -> Result:
    """The newest addition is live, unless it is removed."""
    if entry.has_removed(added):
        return entry, Outcome.LATE

    if entry.live is None:
        return replace(entry, live=added), Outcome.APPLIED

    if entry.live == added:
        return entry, Outcome.DUPLICATE

    if is_after(added, entry.live):
        return replace(entry, live=added), Outcome.SUPERSEDED

    return entry, Outcome.LATE


def _remove(entry: Entry, removed: Timetoken) -> Result:
    """A removal ends its own action and every older one.

    It is remembered, because its addition may arrive later.
    """
    is_known = entry.has_removed(removed)
    if not is_known:
        entry = replace(entry, removed_through=removed)

    if entry.live is not None and not is_after(entry.live, removed):
        return replace(entry, live=None), Outcome.APPLIED

    if is_known:
        return entry, Outcome.DUPLICATE

    return entry, Outcome.EARLY


def _prune(entry: Entry, pruned: Timetoken) -> Result:
    """An action that is proven absent ends.

    It leaves no ``removed_through``: if the inference is wrong, the action can come back.
    """
    if entry.live != pruned:
        return entry, Outcome.UNMATCHED

    return replace(entry, live=None), Outcome.APPLIED


def _restore(entry: Entry, restored: Timetoken, removed_through: Timetoken) -> Result:
    """An action that is proven present is live again.

    Its removal is forgotten, if that is the one which the proof saw.
    """
    seen = Entry(live=None, removed_through=removed_through)
    if entry != seen or not entry.has_removed(restored):
        return entry, Outcome.UNMATCHED

    return Entry(live=restored), Outcome.APPLIED
