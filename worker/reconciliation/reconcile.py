"""Reconciles channels.

A reconcile makes tallies equal to PubNub's list, and settles the marks.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict
from logging import INFO, WARNING
from typing import Final

import structlog

from worker.domain.position import Range, Timetoken
from worker.errors import RolledBackError, TallyError
from worker.reconciliation.consistency import Consistency
from worker.reconciliation.marks import ChannelMarks
from worker.reconciliation.repair import Repair
from worker.reconciliation.report import (
    ReconcileOptions,
    ReconcilePolicy,
    ReconcileReport,
)
from worker.store.entries import Entries
from worker.store.progress import LookProgress
from worker.store.rollback_detector import RollbackDetector
from worker.store.tables import Tables
from worker.telemetry import metrics

__all__ = [
    "ReconcileOptions",
    "ReconcilePolicy",
    "ReconcileReport",
    "Reconciler",
]

CHANNEL_CONCURRENCY: Final = 1_000
"""Channels that a command reconciles at once. Most of them wait, and hold no slot."""
log = structlog.get_logger(__name__)


class Reconciler:
    """Reconciles channels, each at most once at a time."""

    def __init__(
        self,
        repair: Repair,
        entries: Entries,
        tables: Tables,
        rollback_detector: RollbackDetector,
        policy: ReconcilePolicy,
        consistency: Consistency,
    ) -> None:
        self.clock = policy.clock
        self.last: tuple[float, ReconcileReport] | None = None
        """The newest report, and when it was made, in seconds of the clock."""
        self._repair = repair
        self._entries = entries
        self._tables = tables
        self._consistency = consistency
        self._marks = ChannelMarks(tables, policy.settle_seconds)
        self._rollback_detector = rollback_detector
        self._slots = policy.slots
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
        names = sorted(set(channels))
        lost: Mapping[str, Collection[Timetoken]] = {}
        if not (options and options.dry_run):
            lost = await self._consistency.lost(names)
        room = asyncio.Semaphore(CHANNEL_CONCURRENCY)

        async def reconcile(channel: str) -> ReconcileReport:
            async with room:
                try:
                    await self._consistency.restore_lost(channel, lost.get(channel, ()))
                    return await self.channel(channel, wanted, options)
                except TallyError as error:
                    return ReconcileReport(
                        channel=channel,
                        failure=str(error),
                        exit_code=error.exit_code,
                    )

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
        turn = self._turns.setdefault(channel, asyncio.Lock())
        # The turn first: a task that holds a slot must not wait for one that needs a slot.
        async with turn, self._slots.held(options.urgency):
            generation = self._rollback_detector.generation
            look = await self._begin(channel, options)
            marks = await self._due_marks(channel, wanted, options, look)
            log.info(
                "reconcile_starts",
                channel=channel,
                since=wanted.since,
                until=wanted.until,
                owed=sorted(marks),
            )
            try:
                report = await self._look(channel, wanted, options, look)
                if not options.dry_run:
                    self._expect_the_same_redis(channel, generation)
                    await self._marks.settle(report, wanted, marks)
            except TallyError:
                metrics.reconciles.labels("failed").inc()
                raise
            self._publish(report)
            return report

    def _expect_the_same_redis(self, channel: str, generation: int) -> None:
        if self._rollback_detector.generation != generation:
            raise RolledBackError(f"Redis went back while {channel!r} was reconciled")

    def _publish(self, report: ReconcileReport) -> None:
        """Keep, count and log a report."""
        self.last = self.clock(), report
        metrics.reconciles.labels(report.result).inc()
        level = INFO if report.is_settled else WARNING
        log.log(level, "reconcile_ends", **asdict(report))

    async def _begin(self, channel: str, options: ReconcileOptions) -> LookProgress:
        """Return the progress of an interrupted look, or that of a new one."""
        if options.resumes:
            saved = await self._tables.progress.read_look(channel)
            if saved:
                return saved
        return LookProgress(await self._tables.server.now())

    async def _due_marks(
        self,
        channel: str,
        wanted: Range,
        options: ReconcileOptions,
        look: LookProgress,
    ) -> dict[str, int]:
        """Return the marks to take back; only a reconcile of everything takes some."""
        if wanted != Range() or options.dry_run:
            return {}
        return await self._marks.due(channel, look.began)

    async def _look(
        self,
        channel: str,
        wanted: Range,
        options: ReconcileOptions,
        look: LookProgress,
    ) -> ReconcileReport:
        """Repair a range; everything is repaired piece by piece, newest first."""
        if wanted != Range():
            return await self._repair.run(channel, wanted, options)

        report = ReconcileReport(
            channel=channel,
            unproven=int(look.is_in_doubt),
            proven_until=look.proven_until,
        )
        if not options.dry_run:
            # Before anything is added: without its actions a message would count twice.
            report.rebuilt = await self._consistency.restore(channel)
        piece = await self._entries.piece(channel, look.next)
        report.add(await self._repair.run(channel, piece, options))
        while piece.since:
            if options.resumes:
                await self._save(report, piece.since, look.began)
            piece = await self._entries.piece(channel, piece.since)
            report.add(await self._repair.run(channel, piece, options))
        if options.resumes:
            await self._tables.progress.end_look(channel)
        return report

    async def _save(self, report: ReconcileReport, reached: Timetoken, began: int) -> None:
        """Save how far a look has come: a kill costs one piece of it."""
        look = LookProgress(
            began,
            next=reached,
            is_in_doubt=not report.is_settled,
            proven_until=report.proven_until,
        )
        await self._tables.progress.save_look(look, report.channel)
