"""Writes what two passes prove.

Removes what is absent, and counts what is listed.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from worker.applying.apply import Applier
from worker.domain.action import Added, Event, Origin, Pruned, Restored
from worker.domain.entry import Entry, Outcome
from worker.domain.position import is_after, order
from worker.domain.reconciliation import Candidate, Proof
from worker.store.batch import MAX_BATCH, batched
from worker.store.entries import Entries
from worker.telemetry import metrics


@dataclass(frozen=True, slots=True)
class Revival:
    """Events that make listed actions live."""

    asked_at: float
    """When PubNub was asked for the first of them, in seconds of the clock."""
    received_at: float
    """When PubNub's first answer came."""
    restored: list[Restored] = field(default_factory=list)
    """A tombstone bars these actions."""
    added: list[Added] = field(default_factory=list)
    """Nothing bars these actions."""

    def take(self, event: Added | Restored | None) -> None:
        """Take in an event."""
        if isinstance(event, Restored):
            self.restored.append(event)
        elif event:
            self.added.append(event)


class Corrections:
    """Corrects tallies."""

    def __init__(
        self,
        entries: Entries,
        applier: Applier,
        clock: Callable[[], float],
    ) -> None:
        self._entries = entries
        self._applier = applier
        self._clock = clock

    async def prune(self, absent: Sequence[Candidate]) -> Counter[Outcome]:
        """Remove entries that are proven absent.

        Return how many had each outcome.
        """
        outcomes: Counter[Outcome] = Counter()
        for batch in batched(absent, MAX_BATCH):
            events = [Pruned(item.identity, item.action_timetoken) for item in batch]
            # What is proven absent stays absent, however long this takes.
            applied = await self._applier.apply(events, Origin.RECONCILE, self._clock())
            metrics.inferred.labels("pruned").inc(applied[Outcome.APPLIED])
            outcomes += applied
        return outcomes

    async def revivals(
        self,
        channel: str,
        present: Mapping[Candidate, Proof],
    ) -> AsyncIterator[Revival]:
        """Yield what makes listed actions live, batch by batch.

        Nothing is written here.
        The caller applies each batch before the next one is made.
        """
        # Of two actions of one identity the newer one counts, so it comes last.
        oldest_first = sorted(present, key=_age)
        for batch in batched(oldest_first, MAX_BATCH):
            identities = [item.identity for item in batch]
            entries = await self._entries.read(channel, identities)
            # What was present may have gone since: the oldest proof counts.
            asked_at = min(present[item].asked_at for item in batch)
            received_at = min(present[item].received_at for item in batch)
            revival = Revival(asked_at, received_at)
            for candidate, entry in zip(batch, entries, strict=True):
                revival.take(_repair(candidate, entry))
            yield revival

    async def restore(self, revival: Revival) -> Counter[Outcome]:
        """Restore actions; return how many had each outcome."""
        outcomes = await self._apply(revival.restored, revival)
        metrics.inferred.labels("restored").inc(outcomes[Outcome.APPLIED])
        return outcomes

    async def add(self, revival: Revival) -> Counter[Outcome]:
        """Add actions; return how many had each outcome."""
        return await self._apply(revival.added, revival)

    async def _apply(
        self,
        events: Sequence[Event],
        revival: Revival,
    ) -> Counter[Outcome]:
        return await self._applier.apply(
            events, Origin.RECONCILE, revival.received_at, revival.asked_at
        )


def _age(candidate: Candidate) -> tuple[int, str]:
    return order(candidate.action_timetoken)


def _repair(candidate: Candidate, entry: Entry) -> Added | Restored | None:
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
