"""Tallies made equal to PubNub's list: additions as in a backfill; removals and restorations only where proven."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import structlog

from worker.apply import Applier, ForgottenError
from worker.comparison import Comparison, FirstLook
from worker.domain.action import Added, Event, Origin, Pruned, Restored
from worker.domain.entry import Entry, Outcome
from worker.domain.position import Range, is_after
from worker.domain.reconciliation import Candidate, Limit, Verdict
from worker.source.history import Slice
from worker.store.entries import Entries
from worker.store.marks import Gap, Marks
from worker.telemetry import metrics

CHANNELS_AT_ONCE: Final = 8
WRITES_AT_ONCE: Final = 500

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Report:
    """What a reconcile found and did in one channel; of a dry run, what it would have done."""

    channel: str
    listed: int = 0
    """Actions PubNub listed in the range."""
    entries: int = 0
    """Entries that were live in Redis in the range, and old enough to be judged."""
    added: int = 0
    pruned: int = 0
    restored: int = 0
    unproven: int = 0
    """Entries of which neither presence nor absence could be proven."""
    refused: int = 0
    """Entries that would have been pruned, and were not: more than the limit."""
    owed: int = 0
    """Marks that are still owed."""
    requests: int = 0

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left in doubt; a restoration is looked at again, for its removal may be on its way."""
        return not (self.unproven or self.refused or self.restored)


@dataclass(frozen=True, slots=True)
class Orders:
    """How a reconcile is to be done."""

    force: bool = False
    """Prune however much it is."""
    dry_run: bool = False
    """Write nothing."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a reconcile keeps to."""

    settle_seconds: float
    limit: Limit
    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class Reconcile:
    """Reconciles channels, each at most once at a time."""

    def __init__(self, comparison: Comparison, entries: Entries, applier: Applier, marks: Marks, terms: Terms) -> None:
        self._comparison = comparison
        self._entries = entries
        self._applier = applier
        self._marks = marks
        self._terms = terms
        self._turns: dict[str, asyncio.Lock] = {}
        self._unwitnessed = 0

    async def run(self, channels: Iterable[str], wanted: Range, orders: Orders | None = None) -> list[Report]:
        """Reconcile the channels, some side by side.

        Raises:
            PubNubError: PubNub refused, or failed too often, for one of them; the others were reconciled.
        """
        room = asyncio.Semaphore(CHANNELS_AT_ONCE)

        async def one(channel: str) -> Report:
            async with room:
                return await self.channel(channel, wanted, orders)

        ended = await asyncio.gather(*map(one, sorted(set(channels))), return_exceptions=True)
        for report in ended:
            if isinstance(report, BaseException):
                raise report
        return [report for report in ended if isinstance(report, Report)]

    async def channel(self, channel: str, wanted: Range, orders: Orders | None = None) -> Report:
        """Reconcile one channel. What it owed is repaid if this began late enough, saw everything and left no doubt.

        Raises:
            PubNubError: PubNub refused, or failed too often; what was not seen is as it was, and still owed.
            RedisUnavailableError: Redis is away; likewise.
            ForgottenError: Redis went back; likewise.
        """
        orders = orders or Orders()
        async with self._turns.setdefault(channel, asyncio.Lock()):
            owed = await self._due(channel) if wanted == Range() and not orders.dry_run else {}
            log.info("reconcile_starts", channel=channel, since=wanted.since, until=wanted.until, owed=sorted(owed))
            generation = self._applier.lineage.generation
            report = await self._reconcile(channel, wanted, orders)
            if not orders.dry_run:
                if self._applier.lineage.generation != generation:
                    raise ForgottenError(f"Redis went back while {channel!r} was reconciled")
                await self._settle(report, owed)
            log.log(20 if report.is_settled else 30, "reconcile_ends", **asdict(report))
            return report

    async def _due(self, channel: str) -> dict[str, int]:
        """Return the marks that a reconcile beginning now repays: those that are older than the settle time."""
        owed = await self._applier.insist(lambda: self._marks.owed(channel))
        now = await self._applier.insist(self._marks.now)
        return {cause: at for cause, at in owed.items() if at + self._terms.settle_seconds * 1000 <= now}

    async def _settle(self, report: Report, owed: dict[str, int]) -> None:
        channel = report.channel
        if not report.is_settled:
            await self._applier.insist(lambda: self._marks.owe([channel], Gap.UNPROVEN))
            await self._applier.insist(lambda: self._marks.remember([channel]))
        if owed and not (report.unproven or report.refused):
            await self._applier.insist(lambda: self._marks.repay(channel, owed))
        left = await self._applier.insist(lambda: self._marks.owed(channel))
        report.owed = len(left)
        if repaid := sorted(owed.keys() - left.keys()):
            for cause in repaid:
                metrics.repaid.labels(cause).inc()
            log.info("gap_repaid", channel=channel, causes=repaid)

    async def _reconcile(self, channel: str, wanted: Range, orders: Orders) -> Report:
        report = Report(channel)
        look = await self._comparison.first(channel, wanted, self._adder(report, orders))
        report.entries, report.listed = len(look.roll), look.coverage.listed
        report.unproven = len(look.coverage.unseen) + look.is_cut
        missing = look.roll.missing
        if look.coverage.listed:
            self._unwitnessed = 0
        if missing or look.listed:
            await self._terms.sleep(self._terms.settle_seconds)
            await self._doubts(look, report, orders)
        report.requests = look.coverage.requests
        return report

    def _adder(self, report: Report, orders: Orders) -> Callable[[Slice, Sequence[Added]], Awaitable[bool]]:
        async def add(slice: Slice, added: Sequence[Added]) -> bool:
            if orders.dry_run:
                return True
            outcomes = await self._applier.apply(added, Origin.RECONCILE, slice.asked_at)
            report.added += outcomes[Outcome.APPLIED]
            return outcomes[Outcome.LATE] > 0

        return add

    async def _doubts(self, look: FirstLook, report: Report, orders: Orders) -> None:
        """Look again at whatever list and entries disagree about, and act on what is proven."""
        missing = look.roll.missing
        is_first = True
        async for candidates in self._comparison.candidates(look):
            if is_first and missing > len(candidates) and self._refuses(look, missing, orders):
                report.refused = missing  # more than fits into one batch: nothing is looked at in vain
                break
            # The listed ones stand for themselves, and for what a prune brings to light: they come with every batch.
            verdicts = await self._comparison.second(look, [*candidates, *look.listed])
            absent = [candidate for candidate in candidates if verdicts[candidate] is Verdict.ABSENT]
            report.unproven += sum(verdict is Verdict.UNPROVEN for verdict in verdicts.values())
            if is_first and missing <= len(candidates) and self._refuses(look, len(absent), orders):
                report.refused = len(absent)
                break
            present = [candidate for candidate in look.listed if verdicts[candidate] is Verdict.PRESENT]
            await self._act(look.channel, absent, present, report, orders)
            is_first = False

    def _refuses(self, look: FirstLook, losses: int, orders: Orders) -> bool:
        """Tell whether that would be too much to take away.

        Where PubNub lists nothing at all, the floor counts for all channels together, until one of them lists
        something: a wrong origin, which knows nothing of anybody, must not empty one small channel after the other.
        """
        if orders.force:
            return False
        if self._terms.limit.forbids(losses, len(look.roll)):
            return True
        if look.coverage.listed:
            return False
        self._unwitnessed += losses
        return self._unwitnessed > self._terms.limit.floor

    async def _act(
        self,
        channel: str,
        absent: Sequence[Candidate],
        present: Sequence[Candidate],
        report: Report,
        orders: Orders,
    ) -> None:
        if orders.dry_run:
            report.pruned += len(absent)
        else:
            outcomes = await self._write([Pruned(c.identity, c.action_timetoken) for c in absent])
            report.pruned += outcomes[Outcome.APPLIED]
            report.unproven += outcomes[Outcome.UNMATCHED]
        await self._bring_back(channel, present, report, orders)

    async def _bring_back(self, channel: str, present: Sequence[Candidate], report: Report, orders: Orders) -> None:
        """Make live what is listed in both looks and is not: nothing counts for its identity."""
        for start in range(0, len(present), WRITES_AT_ONCE):
            some = present[start : start + WRITES_AT_ONCE]
            identities = [candidate.identity for candidate in some]
            entries = await self._applier.insist(
                lambda identities=identities: self._entries.read(channel, identities)  # type: ignore[misc]
            )
            # Of two actions of one identity the newer one counts, so the older ones are applied first.
            pairs = sorted(zip(some, entries, strict=True), key=lambda pair: int(pair[0].action_timetoken))
            events = [event for candidate, entry in pairs if (event := _repair(candidate, entry))]
            restored = sum(isinstance(event, Restored) for event in events)
            if orders.dry_run:
                report.restored += restored
                report.added += len(events) - restored
                continue
            outcomes = await self._write(events)
            # One that did not match has changed meanwhile; either way this channel is looked at once more.
            report.restored += restored
            report.added += max(0, outcomes[Outcome.APPLIED] - restored)

    async def _write(self, events: Sequence[Event]) -> Counter[Outcome]:
        outcomes: Counter[Outcome] = Counter()
        for start in range(0, len(events), WRITES_AT_ONCE):
            # What is proven absent stays absent, however long this takes; what is proven present was so just now.
            some = events[start : start + WRITES_AT_ONCE]
            outcomes += await self._applier.apply(some, Origin.RECONCILE, self._terms.clock())
        for event, count in Counter(type(event).__name__.lower() for event in events).items():
            metrics.inferred.labels(event).inc(count)
        return outcomes


def _repair(candidate: Candidate, entry: Entry) -> Event | None:
    """Return what makes a listed action live; None where its identity is."""
    if entry.live is not None:
        return None
    identity, at = candidate.identity, candidate.action_timetoken
    if entry.removed_through is None or is_after(at, entry.removed_through):
        return Added(identity, at, at)
    return Restored(identity, at, entry.removed_through)
