"""Tallies made equal to PubNub's list: additions as in a backfill; removals and restorations only where proven."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import structlog

from worker.applying.apply import Applier, RolledBackError
from worker.domain.action import Added, Event, Origin, Pruned, Restored
from worker.domain.entry import Entry, Outcome
from worker.domain.position import Range, is_after, order
from worker.domain.reconciliation import Candidate, Limit, Proof, Verdict
from worker.errors import ExitCode, TallyError
from worker.reconciliation.evidence import CANDIDATE_BATCH, Comparison, ScanState
from worker.source.history import ListSlice
from worker.store.batch import MAX_BATCH
from worker.store.batched import batched
from worker.store.entries import Entries
from worker.store.pending_repairs import GapCause
from worker.store.tables import Tables
from worker.telemetry import metrics

CHANNEL_CONCURRENCY: Final = 8
STILL_REFUSED_SECONDS: Final = 90.0
"""A channel PubNub refuses is marked again at every try, once a minute: one this old is back."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class ReconcileReport:
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
    failure: str = ""
    """Why it was not reconciled to the end; empty if it was."""
    exit_code: ExitCode = ExitCode.DONE

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left in doubt; a restoration is looked at again, for its removal may be on its way."""
        return not (self.unproven or self.refused or self.restored)

    @property
    def result(self) -> str:
        """How it ended, in a word."""
        return "refused" if self.refused else "unproven" if self.unproven else "settled"


@dataclass(frozen=True, slots=True)
class ReconcileOptions:
    """How a reconcile is to be done."""

    force: bool = False
    """Prune however much it is."""
    dry_run: bool = False
    """Write nothing."""


@dataclass(frozen=True, slots=True)
class ReconcilePolicy:
    """What a reconcile keeps to."""

    settle_seconds: float
    limit: Limit
    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class Reconciler:
    """Reconciles channels, each at most once at a time."""

    def __init__(
        self,
        comparison: Comparison,
        entries: Entries,
        applier: Applier,
        tables: Tables,
        policy: ReconcilePolicy,
    ) -> None:
        self._comparison = comparison
        self._entries = entries
        self._applier = applier
        self._tables = tables
        self._policy = policy
        self.clock = policy.clock
        self._turns: dict[str, asyncio.Lock] = {}
        self.last: tuple[float, ReconcileReport] | None = None
        """When the newest ended that came to its end, in seconds of the clock, and what it found."""

    async def run(
        self, channels: Iterable[str], wanted: Range, options: ReconcileOptions | None = None
    ) -> list[ReconcileReport]:
        """Reconcile the channels, some side by side; one that fails says so in its report."""
        room = asyncio.Semaphore(CHANNEL_CONCURRENCY)

        async def one(channel: str) -> ReconcileReport:
            async with room:
                try:
                    return await self.channel(channel, wanted, options)
                except TallyError as error:
                    return ReconcileReport(channel, failure=str(error), exit_code=error.exit_code)

        return await asyncio.gather(*map(one, sorted(set(channels))))

    async def channel(
        self, channel: str, wanted: Range, options: ReconcileOptions | None = None
    ) -> ReconcileReport:
        """Reconcile one channel. What it owed is repaid if this began late enough, saw everything and left no doubt.

        Raises:
            PubNubError: PubNub refused, or failed too often; what was not seen is as it was, and still owed.
            RedisUnavailableError: Redis is away; likewise.
            StaleError: Redis was away for too long, or went back (ForgottenError); likewise.
        """
        options = options or ReconcileOptions()
        async with self._turns.setdefault(channel, asyncio.Lock()):
            owed = await self._due(channel) if wanted == Range() and not options.dry_run else {}
            log.info(
                "reconcile_starts",
                channel=channel,
                since=wanted.since,
                until=wanted.until,
                owed=sorted(owed),
            )
            try:
                report = await self._whole(channel, wanted, options, owed)
            except TallyError:
                metrics.reconciles.labels("failed").inc()
                raise
            metrics.reconciles.labels(report.result).inc()
            self.last = self._policy.clock(), report
            log.log(20 if report.is_settled else 30, "reconcile_ends", **asdict(report))
            return report

    async def _whole(
        self, channel: str, wanted: Range, options: ReconcileOptions, owed: dict[str, int]
    ) -> ReconcileReport:
        generation = self._applier.rollback_detector.generation
        report = await self._reconcile(channel, wanted, options)
        if not options.dry_run:
            if self._applier.rollback_detector.generation != generation:
                raise RolledBackError(f"Redis went back while {channel!r} was reconciled")
            await self._settle(report, wanted, owed)
        return report

    async def _due(self, channel: str) -> dict[str, int]:
        """Return the marks that a reconcile beginning now repays: those that are older than the settle time."""
        owed = await self._tables.pending.read(channel)
        now = await self._tables.server.now()
        return {
            cause: at
            for cause, at in owed.items()
            if ripe_at(cause, at, self._policy.settle_seconds) <= now
        }

    async def _settle(self, report: ReconcileReport, wanted: Range, owed: dict[str, int]) -> None:
        channel = report.channel
        unknown = await self._tables.channels.unknown([channel])
        if not report.is_settled:
            await self._tables.pending.mark([channel], GapCause.UNPROVEN)
        elif unknown and wanted != Range():
            await self._tables.pending.mark([channel], GapCause.NEW_CHANNEL)
        # Last: a channel that is known already would never be met as a new one.
        await self._tables.channels.add([channel])
        if owed and not (report.unproven or report.refused):
            await self._tables.pending.clear(channel, owed)
        left = await self._tables.pending.read(channel)
        report.owed = len(left)
        if repaid := sorted(owed.keys() - left.keys()):
            for cause in repaid:
                metrics.repaid.labels(cause).inc()
            log.info("gap_repaid", channel=channel, causes=repaid)

    async def _reconcile(
        self, channel: str, wanted: Range, options: ReconcileOptions
    ) -> ReconcileReport:
        report = ReconcileReport(channel)
        scan = await self._comparison.first_pass(channel, wanted, self._adder(report, options))
        report.entries, report.listed = len(scan.seen), scan.coverage.listed
        report.unproven = len(scan.coverage.unseen) + scan.is_cut
        total = await self._comparison.count(scan)
        if total or scan.listed:
            await self._policy.sleep(self._policy.settle_seconds)
            await self._doubts(scan, total, report, options)
        report.requests = scan.coverage.requests
        return report

    def _adder(
        self, report: ReconcileReport, options: ReconcileOptions
    ) -> Callable[[ListSlice, Sequence[Added]], Awaitable[bool]]:
        async def add(slice: ListSlice, added: Sequence[Added]) -> bool:
            if options.dry_run:
                return True
            outcomes = await self._applier.apply(added, Origin.RECONCILE, slice.asked_at)
            report.added += outcomes[Outcome.APPLIED]
            return outcomes[Outcome.LATE] > 0

        return add

    async def _doubts(
        self, scan: ScanState, total: int, report: ReconcileReport, options: ReconcileOptions
    ) -> None:
        """Look again at whatever list and entries disagree about, and act on what is proven."""
        if total > CANDIDATE_BATCH and await self._refuses(scan, total, options):
            report.refused = total  # nothing is looked at in vain
            return
        async for candidates in self._comparison.candidates(scan):
            # The listed ones stand for themselves, and for what a prune brings to light: they come with every batch.
            proofs = await self._comparison.second_pass(scan, [*candidates, *scan.listed])
            report.unproven += sum(proof.verdict is Verdict.UNPROVEN for proof in proofs.values())
            absent = [each for each in candidates if proofs[each].verdict is Verdict.ABSENT]
            if total <= CANDIDATE_BATCH and await self._refuses(scan, len(absent), options):
                report.refused = len(absent)
                return
            present = {
                each: proofs[each]
                for each in scan.listed
                if proofs[each].verdict is Verdict.PRESENT
            }
            await self._prune(absent, report, options)
            await self._bring_back(scan.channel, present, report, options)

    async def _refuses(self, scan: ScanState, losses: int, options: ReconcileOptions) -> bool:
        """Tell whether that is too much to take away, or taken on the word of an origin that knows nobody."""
        if options.force or not losses:
            return False
        if self._policy.limit.forbids(losses, len(scan.seen)):
            return True
        if scan.coverage.listed:
            return False
        others = await self._tables.channels.all()
        return not await self._comparison.is_known_origin(scan.channel, others)

    async def _prune(
        self, absent: Sequence[Candidate], report: ReconcileReport, options: ReconcileOptions
    ) -> None:
        if options.dry_run:
            report.pruned += len(absent)
            return
        for some in batched(absent, MAX_BATCH):
            # What is proven absent stays absent, however long this takes.
            events = [Pruned(each.identity, each.action_timetoken) for each in some]
            outcomes = await self._applier.apply(events, Origin.RECONCILE, self._policy.clock())
            report.pruned += outcomes[Outcome.APPLIED]
            report.unproven += outcomes[Outcome.UNMATCHED]
            metrics.inferred.labels("pruned").inc(outcomes[Outcome.APPLIED])

    async def _bring_back(
        self,
        channel: str,
        present: Mapping[Candidate, Proof],
        report: ReconcileReport,
        options: ReconcileOptions,
    ) -> None:
        """Make live what is listed in both looks and is not: nothing counts for its identity."""
        # Of two actions of one identity the newer one counts, so the older ones are applied first.
        for some in batched(
            sorted(present, key=lambda each: order(each.action_timetoken)), MAX_BATCH
        ):
            identities = [each.identity for each in some]
            entries = await self._entries.read(channel, identities)
            events = [
                event
                for each, entry in zip(some, entries, strict=True)
                if (event := _repair(each, entry))
            ]
            restored = [event for event in events if isinstance(event, Restored)]
            added = [event for event in events if isinstance(event, Added)]
            if options.dry_run:
                report.restored += len(restored)
                report.added += len(added)
                continue
            # What was present may have gone since: one that waited is not to be believed any more.
            asked_at = min(present[each].asked_at for each in some)
            outcomes = await self._applier.apply(restored, Origin.RECONCILE, asked_at)
            report.restored += outcomes[Outcome.APPLIED]
            report.unproven += outcomes[Outcome.UNMATCHED]
            metrics.inferred.labels("restored").inc(outcomes[Outcome.APPLIED])
            report.added += (await self._applier.apply(added, Origin.RECONCILE, asked_at))[
                Outcome.APPLIED
            ]


def ripe_at(cause: str, at: int, settle_seconds: float) -> float:
    """Return when a reconcile may begin that is to repay a mark; both in milliseconds."""
    still_refused = STILL_REFUSED_SECONDS if cause == GapCause.FORBIDDEN else 0.0
    return at + (settle_seconds + still_refused) * 1000


def _repair(candidate: Candidate, entry: Entry) -> Event | None:
    """Return what makes a listed action live; None where its identity is."""
    if entry.live is not None:
        return None
    identity, at = candidate.identity, candidate.action_timetoken
    if entry.removed_through is None or is_after(at, entry.removed_through):
        return Added(identity, at, at)
    return Restored(identity, at, entry.removed_through)
