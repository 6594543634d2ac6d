"""The rule at work in memory: what Redis and the worker's script are compared with."""

from collections.abc import Iterable

from worker.domain.action import Event, Identity
from worker.domain.entry import ABSENT, Entry, Outcome, apply
from worker.domain.tally import TallyKey


def count_of(entry: Entry) -> int:
    """Return what an entry adds to its tally: 1 while it is live, else 0."""
    return 0 if entry.live is None else 1


class Ledger:
    """Entries, and the counts that follow from them."""

    def __init__(self) -> None:
        self.entries: dict[Identity, Entry] = {}
        self._counts: dict[TallyKey, int] = {}

    def apply(self, events: Iterable[Event]) -> list[Outcome]:
        """Apply the events in turn; return what each did."""
        return [self._apply(event) for event in events]

    def counts(self, channel: str, message_timetoken: str) -> dict[str, dict[str, int]]:
        """Return type → value → count of one message."""
        counts: dict[str, dict[str, int]] = {}
        for (at, message, kind, value), count in self._counts.items():
            if (at, message) == (channel, message_timetoken):
                counts.setdefault(kind, {})[value] = count
        return counts

    def _apply(self, event: Event) -> Outcome:
        identity = event.identity
        before = self.entries.get(identity, ABSENT)
        after, outcome = apply(before, event)
        if after != ABSENT or identity in self.entries:
            self.entries[identity] = after
        self._change(
            (identity.channel, identity.message_timetoken, identity.type, identity.value),
            before,
            after,
        )
        return outcome

    def _change(self, tally: TallyKey, before: Entry, after: Entry) -> None:
        if count := self._counts.get(tally, 0) + count_of(after) - count_of(before):
            self._counts[tally] = count
        else:
            self._counts.pop(tally, None)
