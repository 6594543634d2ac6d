"""Reconciles channels.

It makes tallies equal to PubNub's list, and settles the marks.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from logging import DEBUG, INFO, WARNING
from typing import Final

import structlog

from worker.domain.position import Range, Timetoken, milliseconds
from worker.errors import RolledBackError, TallyError
from worker.reconciliation.consistency import Consistency
from worker.reconciliation.marks import ChannelMarks
from worker.reconciliation.repaid_gaps import RepaidGaps
from worker.reconciliation.repair import Repair
from worker.reconciliation.report import (
    CHANNEL_CONCURRENCY,
    ReconcileOptions,
    ReconcilePolicy,
    ReconcileReport,
)
from worker.store.progress import LookProgress
from worker.store.rollback_detector import RollbackDetector
from worker.store.tables import Tables
from worker.telemetry import metrics

USUAL: Final = ReconcileOptions()

log = structlog.get_logger(__name__)


class Reconciler:
    """Reconciles channels, each at most once at a time."""

    def __init__(
        self,
        repair: Repair,
        tables: Tables,
        rollback_detector: RollbackDetector,
        policy: ReconcilePolicy,
        consistency: Consistency,
    ) -> None:
        self.clock = policy.clock
        self.last: tuple[float, ReconcileReport] | None = None
        """The newest report, and when it was made."""
        self.repaid = RepaidGaps()
        self._repair = repair
        self._resumes = policy.is_worker
        self._recheck = policy.recheck
        self._tables = tables
        self._consistency = consistency
        self._marks = ChannelMarks(tables, policy, self.repaid)
        self._rollback_detector = rollback_detector
        self._slots = policy.slots
        self._turns: dict[str, asyncio.Lock] = {}

    async def run(
        self,
        channels: Iterable[str],
        wanted: Range,
        options: ReconcileOptions = USUAL,
    ) -> list[ReconcileReport]:
        """Reconcile the channels, some side by side.

        The report of a channel that fails says why.
        """
        names = sorted(set(channels))
        lost: Mapping[str, Collection[Timetoken]] = {}
        if not options.dry_run:
            lost = await self._consistency.audit.unindexed(names)
        room = asyncio.Semaphore(CHANNEL_CONCURRENCY)

        async def reconcile(channel: str) -> ReconcileReport:
            async with room:
                try:
                    messages = lost.get(channel, ())
                    rebuilt = await self._consistency.restore_lost(channel, messages)
                    report = await self.channel(channel, wanted, options)
                except TallyError as error:
                    return ReconcileReport(
                        channel=channel,
                        failure=str(error),
                        exit_code=error.exit_code,
                    )
                report.rebuilt += rebuilt
                return report

        return await asyncio.gather(*map(reconcile, names))

    async def channel(
        self,
        channel: str,
        wanted: Range,
        options: ReconcileOptions = USUAL,
    ) -> ReconcileReport:
        """Reconcile one channel.

        Its marks are taken back if they were old enough then,
        everything was seen, and nothing is in doubt.

        Raises:
            PubNubError: PubNub refused, or failed too often.
                What was not seen is as it was, and its marks stay.
            RedisUnavailableError: Redis is away; likewise.
            StaleError: Redis was away too long, or went back; likewise.
            DamagedKeyError: another program wrote a key; likewise.
        """
        turn = self._turns.setdefault(channel, asyncio.Lock())
        # The turn first:
        # a task that holds a slot must not wait for one that needs a slot.
        slot = self._slots.held(options.urgency)
        async with turn, slot, self._consistency.entries.damage_named(channel):
            if await self._marks.is_forgotten(channel):
                return ReconcileReport(channel=channel)
            if options.force and not options.dry_run and wanted == Range():
                await self._marks.ripen_doubts(channel)
            report = await self._reconcile(channel, wanted, options)
            self._publish(report)
            return report

    async def _reconcile(
        self,
        channel: str,
        wanted: Range,
        options: ReconcileOptions,
    ) -> ReconcileReport:
        epoch = self._rollback_detector.epoch
        check = partial(self._expect_the_same_redis, channel, epoch)
        look = await _begin_look(self._tables, channel, resumes=self._resumes)
        marks: dict[str, int] = {}
        if not options.dry_run:
            marks = await self._marks.due(channel, wanted, look.began)
        log.debug(
            "reconcile_starts",
            channel=channel,
            since=wanted.since,
            until=wanted.until,
            owed=sorted(marks),
        )
        try:
            if wanted == Range():
                report = await self._look_at_all(channel, options, look)
            else:
                report = await self._repair.run(channel, wanted, options)
            if not options.dry_run:
                check()
                await self._marks.settle(report, marks, check)
                await _note_proof(self._tables, self._recheck, report, wanted, options)
        except TallyError:
            metrics.reconciles.labels("failed").inc()
            raise
        return report

    async def _look_at_all(
        self,
        channel: str,
        options: ReconcileOptions,
        look: LookProgress,
    ) -> ReconcileReport:
        """Repair what is left of a look, piece by piece, newest first."""
        report = ReconcileReport(
            channel=channel,
            unproven=int(look.is_in_doubt),
            proven_until=look.proven_until,
        )
        entries = self._consistency.entries
        if not options.dry_run:
            # Before anything is added:
            # without its actions a message would count twice.
            report.rebuilt = await self._consistency.restore(channel)
        piece = await entries.piece(channel, look.next)
        report.add(await self._repair.run(channel, piece, options))
        while piece.since:
            if self._resumes:
                # A kill costs one piece.
                await _save_look(self._tables, look, piece.since, report)
            piece = await entries.piece(channel, piece.since)
            report.add(await self._repair.run(channel, piece, options))
        if not options.dry_run:
            await self._tables.progress.end_look(channel)
        return report

    def _expect_the_same_redis(self, channel: str, epoch: int) -> None:
        if self._rollback_detector.epoch != epoch:
            raise RolledBackError(f"Redis went back while {channel!r} was reconciled")

    def _publish(self, report: ReconcileReport) -> None:
        """Keep, count and log a report."""
        self.last = self.clock(), report
        metrics.reconciles.labels(report.result).inc()
        log.log(_level(report), "reconcile_ends", **report.facts)


def _level(report: ReconcileReport) -> int:
    """Return the level of a report: most channels have nothing to tell."""
    if not report.is_settled:
        return WARNING
    return INFO if report.has_changes else DEBUG


async def _begin_look(tables: Tables, channel: str, *, resumes: bool) -> LookProgress:
    """Return the progress of an interrupted look, or that of a new one.

    A look that began in the future is begun anew: Redis's clock went back,
    and by its new time this look would take back marks of gaps that came later.
    """
    now = await tables.server.now()
    if resumes:
        saved = await tables.progress.read_look(channel)
        if saved and saved.began <= now:
            return saved
    return LookProgress(now)


async def _save_look(
    tables: Tables,
    look: LookProgress,
    reached: Timetoken,
    report: ReconcileReport,
) -> None:
    """Save how far a look has come."""
    progress = LookProgress(
        look.began,
        next=reached,
        is_in_doubt=not report.is_settled,
        proven_until=report.proven_until,
    )
    await tables.progress.save_look(progress, report.channel)


async def _note_proof(
    tables: Tables,
    recheck: Callable[[str, int], int],
    report: ReconcileReport,
    wanted: Range,
    options: ReconcileOptions,
) -> None:
    """Note a look at the present that left nothing in doubt."""
    channel = report.channel
    until = milliseconds(report.proven_until)
    since = milliseconds(wanted.since) if wanted.since else None
    whole = until
    if report.pruned and not options.force:
        # A wrong prune must be short-lived:
        # everything is looked at again soon.
        whole = recheck(channel, until)
        await tables.proofs.set_back(channel, whole)
    if not report.is_settled or wanted.until:
        return
    await tables.proofs.note(channel, until, since, whole)
    if await tables.channels.unknown([channel]):  # forgotten meanwhile
        await tables.proofs.forget(channel)
