"""Makes the tallies of one channel equal to PubNub's list.

Additions are applied as in a backfill.
Removals and restorations are applied only where they are proven.
"""

from collections.abc import Sequence

from worker.applying.apply import Applier
from worker.domain.action import Added, Origin
from worker.domain.entry import Outcome
from worker.domain.position import Range
from worker.reconciliation.corrections import Corrections
from worker.reconciliation.evidence import (
    CANDIDATE_BATCH,
    Comparison,
    Findings,
    TakeAdditions,
)
from worker.reconciliation.report import (
    ReconcileOptions,
    ReconcilePolicy,
    ReconcileReport,
)
from worker.reconciliation.scan_state import ScanState
from worker.source.history import ListSlice
from worker.store.entries import Entries
from worker.store.tables import KnownChannels


class Repair:
    """Compares a channel and corrects it; its marks are left alone."""

    def __init__(
        self,
        comparison: Comparison,
        entries: Entries,
        applier: Applier,
        channels: KnownChannels,
        policy: ReconcilePolicy,
    ) -> None:
        self._comparison = comparison
        self._corrections = Corrections(entries, applier, policy.clock)
        self._applier = applier
        self._channels = channels
        self._policy = policy

    async def run(
        self,
        channel: str,
        wanted: Range,
        options: ReconcileOptions,
    ) -> ReconcileReport:
        """Make the first pass, and a second one if something is in doubt."""
        report = ReconcileReport(channel=channel)
        take = self._adder(report, options)
        scan = await self._comparison.first_pass(channel, wanted, take)
        report.entries = len(scan.seen)
        report.listed = scan.coverage.listed
        report.unproven = len(scan.coverage.unseen) + scan.is_cut

        total = await self._comparison.count(scan)
        if total or scan.listed:
            await self._policy.sleep(self._policy.settle_seconds)
            await self._look_again(scan, total, report, options)
        report.requests = scan.coverage.requests
        return report

    def _adder(
        self,
        report: ReconcileReport,
        options: ReconcileOptions,
    ) -> TakeAdditions:
        """Return a function that applies the additions of a slice."""

        async def add(slice: ListSlice, added: Sequence[Added]) -> bool:
            if options.dry_run:
                return True
            outcomes = await self._applier.apply(added, Origin.RECONCILE, slice.asked_at)
            report.added += outcomes[Outcome.APPLIED]
            return outcomes[Outcome.LATE] > 0

        return add

    async def _look_again(
        self,
        scan: ScanState,
        total: int,
        report: ReconcileReport,
        options: ReconcileOptions,
    ) -> None:
        """Look again at what list and entries disagree about.

        Correct what is proven.
        The limit is compared with all candidates at once.
        """
        is_one_batch = total <= CANDIDATE_BATCH
        if not is_one_batch and await self._refuses(scan, total, options):
            report.refused = total
            return
        async for candidates in self._comparison.candidates(scan):
            # Actions that are listed but not live come with every batch,
            # because a prune may uncover one of them.
            findings = await self._comparison.second_pass(scan, candidates)
            report.unproven += findings.unproven
            losses = len(findings.absent)
            if is_one_batch and await self._refuses(scan, losses, options):
                report.refused = losses
                return
            await self._correct(findings, report, options)

    async def _refuses(
        self,
        scan: ScanState,
        losses: int,
        options: ReconcileOptions,
    ) -> bool:
        """Tell whether the losses are too many, or rest on a wrong origin."""
        if options.force or not losses:
            return False
        if self._policy.limit.forbids(losses, len(scan.seen)):
            return True
        if scan.coverage.listed:
            return False
        others = await self._channels.all()
        origin = self._comparison.origin
        return not await origin.is_known(scan.channel, others)

    async def _correct(
        self,
        findings: Findings,
        report: ReconcileReport,
        options: ReconcileOptions,
    ) -> None:
        """Prune what is absent, and make live what is present."""
        if options.dry_run:
            report.pruned += len(findings.absent)
        else:
            outcomes = await self._corrections.prune(findings.absent)
            report.pruned += outcomes[Outcome.APPLIED]
            report.unproven += outcomes[Outcome.UNMATCHED]

        revivals = self._corrections.revivals(report.channel, findings.present)
        async for revival in revivals:
            if options.dry_run:
                report.restored += len(revival.restored)
                report.added += len(revival.added)
                continue
            outcomes = await self._corrections.restore(revival)
            report.restored += outcomes[Outcome.APPLIED]
            report.unproven += outcomes[Outcome.UNMATCHED]
            outcomes = await self._corrections.add(revival)
            report.added += outcomes[Outcome.APPLIED]
