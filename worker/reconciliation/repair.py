"""Makes the tallies of one channel equal to PubNub's list.

Additions are applied as in a backfill.
Removals and restorations are applied only where they are proven.
"""

from collections.abc import Mapping, Sequence

from worker.applying.apply import Applier
from worker.domain.action import Added, Origin
from worker.domain.entry import Outcome
from worker.domain.position import Range
from worker.domain.reconciliation import Candidate, Proof
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
        """Make the first pass, and a second one if something is in doubt."""
        report = ReconcileReport(channel=channel)
        take = self._adder(report, options)
        scan = await self._comparison.first_pass(channel, wanted, take)
        total = await self._comparison.count(scan)
        report.proven_until = scan.horizon
        report.entries = len(scan.seen)
        report.listed = scan.coverage.listed
        report.unproven = len(scan.coverage.unseen) + scan.is_cut
        if report.rebuilt:
            # The index lacked messages, so their entries were not compared.
            report.unproven += 1

        if total or scan.listed:
            await self._policy.slots.pause(self._policy.settle_seconds)
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
        total: int,
        report: ReconcileReport,
        options: ReconcileOptions,
    ) -> None:
        """Look again at what list and entries disagree about.

        Correct what is proven.
        The limit is compared with all candidates at once.
        """
        is_one_batch = total <= CANDIDATE_BATCH
        if not is_one_batch and not options.force:
            report.reason = await self._limit.refusal(scan, total, None)
            report.refused = total if report.reason else 0
        if report.refused:
            findings = await self._comparison.second_pass(scan, ())
            await self._correct(findings, report, options)
            return
        async for candidates in self._comparison.candidates(scan):
            # Actions that are listed but not live come with every batch,
            # because a prune may uncover one of them.
            findings = await self._comparison.second_pass(scan, candidates)
            report.unproven += findings.unproven
            losses = len(findings.absent)
            if losses and is_one_batch and not options.force:
                report.reason = await self._limit.refusal(scan, losses, findings)
                report.refused = losses if report.reason else 0
            await self._correct(findings, report, options)

    async def _correct(
        self,
        findings: Findings,
        report: ReconcileReport,
        options: ReconcileOptions,
    ) -> None:
        """Prune what is absent unless it is refused, and make live what is present."""
        if not report.refused:
            await self._prune(findings, report, options)
        try:
            await self._revive(findings.present, report, options)
        except RolledBackError:
            raise
        except StaleError:
            # The second pass took longer than its answers may wait.
            async for present in findings.present_again():
                await self._revive(present, report, options)

    async def _revive(
        self,
        present: Mapping[Candidate, Proof],
        report: ReconcileReport,
        options: ReconcileOptions,
    ) -> None:
        """Make live what is present."""
        revivals = self._corrections.revivals(report.channel, present)
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

    async def _prune(
        self,
        findings: Findings,
        report: ReconcileReport,
        options: ReconcileOptions,
    ) -> None:
        absent = findings.absent
        if options.dry_run:
            report.pruned += len(absent)
            return
        if absent and not options.force:  # what a person forces does not count
            await self._limit.note(report.channel, len(absent))
        outcomes = await self._corrections.prune(absent)
        report.pruned += outcomes[Outcome.APPLIED]
        report.unproven += outcomes[Outcome.UNMATCHED]
