"""Makes the tallies of one channel equal to PubNub's list.

Additions are applied as in a backfill.
Removals and restorations only where they are proven.
"""

from collections.abc import Sequence

from worker.applying.apply import Applier
from worker.domain.action import Added, Origin
from worker.domain.entry import Outcome
from worker.domain.position import Range
from worker.domain.reconciliation import Candidate
from worker.errors import RolledBackError, StaleError
from worker.reconciliation.consistency import Consistency
from worker.reconciliation.corrections import Corrections
from worker.reconciliation.evidence import (
    CANDIDATE_BATCH,
    Comparison,
    Findings,
    TakeAdditions,
)
from worker.reconciliation.prune_limit import PruneLimit
from worker.reconciliation.report import (
    ReconcileOptions,
    ReconcilePolicy,
    ReconcileReport,
)
from worker.reconciliation.scan_state import ScanState
from worker.source.history import ListSlice


class Repair:
    """Compares a channel and corrects it; its marks are left alone."""

    def __init__(
        self,
        comparison: Comparison,
        corrections: Corrections,
        limit: PruneLimit,
        applier: Applier,
        policy: ReconcilePolicy,
        consistency: Consistency,
    ) -> None:
        self._comparison = comparison
        self._corrections = corrections
        self._limit = limit
        self._consistency = consistency
        self._applier = applier
        self._policy = policy

    async def run(
        self,
        channel: str,
        wanted: Range,
        options: ReconcileOptions,
    ) -> ReconcileReport:
        """Make the first pass, and a second one where in doubt."""
        report = ReconcileReport(channel=channel)
        take = None if options.dry_run else self._adder(report)
        scan = await self._comparison.first_pass(channel, wanted, take)
        if scan.coverage.listed:
            self._limit.origin.note_listed(channel)
        report.proven_until = scan.horizon
        report.entries = len(scan.seen)
        report.listed = scan.coverage.actions
        report.unproven = len(scan.coverage.unseen) + scan.is_cut
        if report.rebuilt:
            # The index lacked messages, so their entries were not compared.
            report.unproven += 1

        if scan.seen.unseen or scan.listed:
            await self._policy.slots.pause(self._policy.settle_seconds)
            await self._look_again(scan, report, options)
        report.requests = scan.coverage.requests
        return report

    def _adder(self, report: ReconcileReport) -> TakeAdditions:
        """Return a function that applies the additions of a slice."""

        async def add(slice: ListSlice, added: Sequence[Added]) -> bool:
            messages = {item.identity.message_timetoken for item in added}
            report.rebuilt += await self._consistency.restore_messages(report.channel, messages)
            outcomes = await self._applier.apply(
                added, Origin.RECONCILE, slice.received_at, slice.asked_at
            )
            report.added += outcomes[Outcome.APPLIED]
            return outcomes[Outcome.LATE] > 0

        return add

    async def _look_again(
        self,
        scan: ScanState,
        report: ReconcileReport,
        options: ReconcileOptions,
    ) -> None:
        """Look again at what list and entries disagree about.

        Correct what is proven.
        The limit is compared with all candidates at once.
        """
        total = scan.seen.unseen
        is_limited = not options.force
        async for candidates in self._comparison.candidates(scan):
            # Actions that are listed but not live come with every batch,
            # because a prune may uncover one of them.
            findings = await self._comparison.second_pass(scan, candidates)
            report.unproven += findings.unproven
            losses = len(findings.absent)
            if losses and is_limited:
                losses = total if total > CANDIDATE_BATCH else losses
                report.reason = await self._limit.refusal(scan, losses, findings)
                report.refused = losses if report.reason else 0
                is_limited = False
            if not report.refused:
                await self._prune(findings.absent, report, options)
            await self._revive(findings, report, dry_run=options.dry_run)
            if report.refused:
                break

    async def _revive(
        self,
        findings: Findings,
        report: ReconcileReport,
        *,
        dry_run: bool,
    ) -> None:
        """Make live what is present."""
        revive = self._corrections.revive
        try:
            await revive(findings.present, report, dry_run=dry_run)
        except RolledBackError:
            raise
        except StaleError:
            # The second pass took longer than its answers may wait.
            async for present in findings.present_again():
                await revive(present, report, dry_run=dry_run)

    async def _prune(
        self,
        absent: Sequence[Candidate],
        report: ReconcileReport,
        options: ReconcileOptions,
    ) -> None:
        if options.dry_run:
            report.pruned += len(absent)
            return
        if absent and not options.force:  # what a person forces does not count
            await self._limit.note(report.channel, len(absent))
        await self._corrections.prune(absent, report)
