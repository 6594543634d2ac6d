"""Looks at everything of one channel, in pieces that a kill does not undo."""

from worker.domain.position import Timetoken
from worker.reconciliation.consistency import Consistency
from worker.reconciliation.repair import Repair
from worker.reconciliation.report import ReconcileOptions, ReconcileReport
from worker.store.entries import Entries
from worker.store.progress import LookProgress
from worker.store.tables import Tables


class FullLook:
    """Repairs a channel piece by piece, newest first."""

    def __init__(
        self,
        repair: Repair,
        consistency: Consistency,
        entries: Entries,
        tables: Tables,
    ) -> None:
        self._repair = repair
        self._consistency = consistency
        self._entries = entries
        self._progress = tables.progress
        self._server = tables.server

    async def begin(
        self,
        channel: str,
        options: ReconcileOptions,
    ) -> LookProgress:
        """Return the progress of an interrupted look, or that of a new one.

        A look that began in the future is begun anew: Redis's clock went back,
        and by its new time this look would take back marks of gaps that came later.
        """
        now = await self._server.now()
        if options.resumes:
            saved = await self._progress.read_look(channel)
            if saved and saved.began <= now:
                return saved
        return LookProgress(now)

    async def run(
        self,
        channel: str,
        options: ReconcileOptions,
        look: LookProgress,
    ) -> ReconcileReport:
        """Repair what is left of a look.

        Raises:
            TallyError: the look came to no end; what was saved is resumed.
        """
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
            await self._progress.end_look(channel)
        return report

    async def _save(
        self,
        report: ReconcileReport,
        reached: Timetoken,
        began: int,
    ) -> None:
        """Save how far a look has come: a kill costs one piece of it."""
        look = LookProgress(
            began,
            next=reached,
            is_in_doubt=not report.is_settled,
            proven_until=report.proven_until,
        )
        await self._progress.save_look(look, report.channel)
