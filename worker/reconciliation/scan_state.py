"""What the first pass has found in one channel."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import compress
from typing import Final

from reaction_tally.keys import action_field
from worker.domain.action import Added
from worker.domain.position import Range, Timetoken, is_after
from worker.domain.reconciliation import Candidate, Coverage
from worker.domain.seen_set import EntryKey, SeenSet
from worker.store.entries import Message, entry_keys

PREFIXES: Final = 256
"""Types and values whose part of a field is remembered.

There are few, and escaping them takes long.
"""


@dataclass(slots=True, kw_only=True)
class ScanState:
    """The live entries of one channel, and which of them are listed."""

    channel: str
    wanted: Range
    horizon: Timetoken
    """Actions from here on are too young: lists lag behind."""
    forgotten: Timetoken | None = None
    """Messages before this have expired, by Redis's clock. PubNub still lists them.

    That clock decides in the scripts, too: no margin is needed.
    """
    seen: SeenSet = field(default_factory=SeenSet)
    coverage: Coverage = field(default_factory=Coverage)
    listed: set[Candidate] = field(default_factory=set)
    """Actions that are listed and old enough, but not live.

    A tombstone bars such an action,
    or a newer action of the same identity counts.
    """
    is_cut: bool = False
    """Whether more such actions were found than are kept."""

    @property
    def due(self) -> Range:
        """Which actions may be judged.

        These are the wanted actions that are older than the horizon.
        """
        since, until = self.wanted.since, self.wanted.until
        if until is None or is_after(until, self.horizon):
            until = self.horizon
        return Range(since, until)

    def add(self, messages: Iterable[Message]) -> None:
        """Add the live entries of these messages.

        Entries that may not be judged are left out.
        """
        due = self.due
        for message, fields in messages:
            if self.is_kept(message):
                entries = {name: at for name, at in fields.items() if due.covers(at)}
                self.seen.add(entry_keys((message, entries)))

    def wanted_of(self, added: Sequence[Added]) -> Sequence[Added]:
        """Return those additions that are in the range, and counted."""
        return [item for item in added if self._is_wanted(item)]

    def _is_wanted(self, item: Added) -> bool:
        if not self.wanted.covers(item.action_timetoken):
            return False
        return self.is_kept(item.identity.message_timetoken)

    def mark_seen(self, added: Iterable[Added]) -> None:
        """Mark the entries of these additions as seen."""
        self.seen.mark_seen(map(_entry_key, added))

    def unknown(self, added: Sequence[Added]) -> list[Added]:
        """Return those additions that were not live before.

        Additions that may not be judged are left out.
        """
        due = self.due
        are_known = self.seen.has(map(_entry_key, added))
        unknown: list[Added] = []
        for item, is_known in zip(added, are_known, strict=True):
            if not is_known and due.covers(item.action_timetoken):
                unknown.append(item)
        return unknown

    def unseen_of(self, messages: Iterable[Message]) -> list[EntryKey]:
        """Return the entries of these messages that are not listed.

        Entries in stretches that were not read completely are left out.
        """
        unseen: list[EntryKey] = []
        for message in messages:
            are_unseen = self.seen.are_unseen(entry_keys(message))
            unseen += compress(entry_keys(message), are_unseen)
        return [key for key in unseen if self.coverage.has_seen(key[2])]

    def is_kept(self, message_timetoken: Timetoken) -> bool:
        """Tell whether a message is younger than the retention.

        One that does not have PubNub's length has no age.
        """
        before = self.forgotten
        if before is None or len(message_timetoken) != len(before):
            return True
        return not is_after(before, message_timetoken)


def _entry_key(item: Added) -> EntryKey:
    """Return the entry that an addition makes live."""
    identity = item.identity
    prefix = _prefix(identity.type, identity.value)
    field = prefix + identity.uuid
    return identity.message_timetoken, field, item.action_timetoken


@lru_cache(PREFIXES)
def _prefix(type: str, value: str) -> str:
    return action_field(type, value, "")
