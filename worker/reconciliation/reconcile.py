"""Reconciles channels.

A reconcile makes tallies equal to PubNub's list, and settles the marks.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import asdict
from logging import INFO, WARNING
from typing import Final

import structlog

from worker.applying.apply import Applier
from worker.domain.position import Range
from worker.errors import RolledBackError, TallyError
from worker.reconciliation.evidence import Comparison
from worker.reconciliation.marks import ChannelMarks
from worker.reconciliation.repair import Repair
from worker.reconciliation.report import (
    ReconcileOptions,
    ReconcilePolicy,
    ReconcileReport,
)
from worker.store.entries import Entries
from worker.store.tables import Tables
from worker.telemetry import metrics

__all__ = [
    "ReconcileOptions",
    "ReconcilePolicy",
    "ReconcileReport",
    "Reconciler",
]

CHANNEL_CONCURRENCY: Final = 8
"""Channels that are reconciled side by side."""
log = structlog.get_logger(__name__)


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
        self.clock = policy.clock
        self.last: tuple[float, ReconcileReport] | None = None
        """The newest report, and when it was made, in seconds of the clock."""
        self._repair = Repair(comparison, entries, applier, tables.channels, policy)
        self._marks = ChannelMarks(tables, policy.settle_seconds)
        self._rollback_detector = applier.rollback_detector
        self._turns: dict[str, asyncio.Lock] = {}

    async def run(
        self,
        channels: Iterable[str],
        wanted: Range,
        options: ReconcileOptions | None = None,
    ) -> list[ReconcileReport]:
        """Reconcile the channels, some side by side.

        The report of a channel that fails says why.
        """
        room = asyncio.Semaphore(CHANNEL_CONCURRENCY)

        async def reconcile(channel: str) -> ReconcileReport:
            async with room:
                try:
                    return await self.channel(channel, wanted, options)
                except TallyError as error:
                    return ReconcileReport(
                        channel=channel,
                        failure=str(error),
                        exit_code=error.exit_code,
                    )

        names = sorted(set(channels))
        return await asyncio.gather(*map(reconcile, names))

    async def channel(
        self,
        channel: str,
        wanted: Range,
        options: ReconcileOptions | None = None,
    ) -> ReconcileReport:
        """Reconcile one channel.

        Its marks are taken back if they were old enough at the beginning,
        everything was seen, and nothing is in doubt.

        Raises:
            PubNubError: PubNub refused, or failed too often.
                What was not seen is as it was, and its marks stay.
            RedisUnavailableError: Redis is away; likewise.
            StaleError: Redis was away for too long, or went back; likewise.
        """
        options = options or ReconcileOptions()
        async with self._turns.setdefault(channel, asyncio.Lock()):
            marks = await self._due_marks(channel, wanted, options)
            log.info(
                "reconcile_starts",
                channel=channel,
                since=wanted.since,
                until=wanted.until,
                owed=sorted(marks),
            )
            try:
                report = await self._reconcile(channel, wanted, options, marks)
            except TallyError:
                metrics.reconciles.labels("failed").inc()
                raise
            self._publish(report)
            return report

    def _publish(self, report: ReconcileReport) -> None:
        """Keep, count and log a report."""
        self.last = self.clock(), report
        metrics.reconciles.labels(report.result).inc()
        level = INFO if report.is_settled else WARNING
        log.log(level, "reconcile_ends", **asdict(report))

    async def _due_marks(
        self,
        channel: str,
        wanted: Range,
        options: ReconcileOptions,
    ) -> dict[str, int]:
        """Return the marks to take back; only a reconcile of everything takes some."""
        if wanted != Range() or options.dry_run:
            return {}
        return await self._marks.due(channel)

    async def _reconcile(
        self,
        channel: str,
        wanted: Range,
        options: ReconcileOptions,
        marks: dict[str, int],
    ) -> ReconcileReport:
        """Compare the channel, and correct it; then settle its marks."""
        detector = self._rollback_detector
        generation = detector.generation
        report = await self._repair.run(channel, wanted, options)
        if options.dry_run:
            return report
        if detector.generation != generation:
            raise RolledBackError(f"Redis went back while {channel!r} was reconciled")
        await self._marks.settle(report, wanted, marks)
        return report
