"""Writes what two passes prove.

Removes what is absent, and counts what is listed.
"""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter

from worker.applying.apply import Applier
from worker.domain.action import Added, Origin, Pruned, Restored
from worker.domain.entry import Entry, Outcome
from worker.domain.position import is_after
from worker.domain.reconciliation import Candidate, Proof, age
from worker.reconciliation.report import ReconcileReport
from worker.store.batch import MAX_BATCH, batched
from worker.store.entries import Entries
from worker.telemetry import metrics


class Corrections:
    """Corrects tallies, and counts in a report what was done."""

    def __init__(
        self,
        entries: Entries,
        applier: Applier,
        clock: Callable[[], float],
    ) -> None:
        self._entries = entries
        self._applier = applier
        self._clock = clock

    async def prune(self, absent: Sequence[Candidate], report: ReconcileReport) -> None:
        """Remove entries that are proven absent."""
        for batch in batched(absent, MAX_BATCH):
            events = [Pruned(item.identity, item.action_timetoken) for item in batch]
            # What is proven absent stays absent, however long this takes.
            outcomes = await self._applier.apply(events, Origin.RECONCILE, self._clock())
            metrics.inferred.labels("pruned").inc(outcomes[Outcome.APPLIED])
            report.pruned += outcomes[Outcome.APPLIED]
            report.unproven += outcomes[Outcome.UNMATCHED]

    async def revive(
        self,
        present: Mapping[Candidate, Proof],
        report: ReconcileReport,
        *,
        dry_run: bool,
    ) -> None:
        """Make listed actions live."""
        # Of two actions of one identity the newer one counts, so it comes last.
        oldest_first = sorted(present, key=age)
        for batch in batched(oldest_first, MAX_BATCH):
            identities = [item.identity for item in batch]
            entries = await self._entries.read(report.channel, identities)
            events = list(map(_revival, batch, entries))
            restored = [event for event in events if isinstance(event, Restored)]
            added = [event for event in events if isinstance(event, Added)]
            if dry_run:
                report.restored += len(restored)
                report.added += len(added)
                continue
            # What was present may have gone since: the oldest proof counts.
            proofs = list(map(present.__getitem__, batch))
            received_at = min(map(attrgetter("received_at"), proofs))
            asked_at = min(map(attrgetter("asked_at"), proofs))
            times = (received_at, asked_at)

            outcomes = await self._applier.apply(restored, Origin.RECONCILE, *times)
            metrics.inferred.labels("restored").inc(outcomes[Outcome.APPLIED])
            report.restored += outcomes[Outcome.APPLIED]
            report.unproven += outcomes[Outcome.UNMATCHED]

            outcomes = await self._applier.apply(added, Origin.RECONCILE, *times)
            report.added += outcomes[Outcome.APPLIED]


def _revival(candidate: Candidate, entry: Entry) -> Added | Restored | None:
    """Return what makes a listed action live.

    None if its identity is live.
    """
    if entry.live is not None:
        return None
    identity = candidate.identity
    at = candidate.action_timetoken
    removed_through = entry.removed_through
    if removed_through is None or is_after(at, removed_through):
        return Added(identity, at, at)
    return Restored(identity, at, removed_through)
