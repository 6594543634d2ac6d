"""The marks in ``owed`` that a reconcile takes back or sets."""

from collections.abc import Callable, Mapping
from typing import Final

from worker.domain.position import Range
from worker.reconciliation.repaid_gaps import RepaidGaps
from worker.reconciliation.report import ReconcilePolicy, ReconcileReport
from worker.store.cursors import CLOCK_TOLERANCE_SECONDS
from worker.store.pending_repairs import GapCause, Marks
from worker.store.tables import Tables
from worker.telemetry import metrics

STILL_REFUSED_SECONDS: Final = 90.0
"""The age of a ``forbidden`` mark whose channel is readable again.

Until then its mark is renewed once a minute.
"""


class ChannelMarks:
    """The marks of channels, before and after a reconcile."""

    def __init__(
        self,
        tables: Tables,
        policy: ReconcilePolicy,
        repaid: RepaidGaps,
    ) -> None:
        self._tables = tables
        self._repaid = repaid
        self._settle_seconds = policy.settle_seconds
        self._slots = policy.slots
        self._is_worker = policy.is_worker

    async def is_forgotten(self, channel: str) -> bool:
        """Tell whether a channel must be left alone."""
        return self._is_worker and await self._tables.channels.is_forgotten(channel)

    async def ripen_doubts(self, channel: str) -> None:
        """Wait until a look that begins now may take back the mark of a doubt.

        Else the mark would stay until the worker looks again, a day later perhaps.
        """
        cause = GapCause.UNPROVEN
        marks = await present_marks(self._tables, channel)
        if cause in marks:
            ripe = ripe_at(cause, marks[cause], self._settle_seconds)
            seconds = (ripe - await self._tables.server.now()) / 1000
            await self._slots.pause(max(0.0, seconds))

    async def due(self, channel: str, wanted: Range, began: int) -> Marks:
        """Return the marks that a reconcile may take back.

        These are the marks that were older than the settle time.
        Only a reconcile of everything takes some back.
        ``began`` is in milliseconds since 1970, by Redis's clock.
        """
        own: Marks = {}
        if not self._is_worker:
            own = await self._tables.remember(channel)
        if wanted != Range():
            return {}
        marks = await present_marks(self._tables, channel)
        settle_seconds = self._settle_seconds
        return own | {
            cause: marked_at
            for cause, marked_at in marks.items()
            if ripe_at(cause, marked_at, settle_seconds) <= began
        }

    async def settle(
        self,
        report: ReconcileReport,
        due: Mapping[str, int],
        check: Callable[[], None],
    ) -> None:
        """Mark what is in doubt; if nothing is, take back the marks that are due.

        ``check`` raises if Redis went back since the reconcile began.
        """
        channel, pending = report.channel, self._tables.pending
        if await self.is_forgotten(channel):
            return
        if not report.is_settled:
            await pending.mark([channel], GapCause.UNPROVEN)
        if due and not report.is_in_doubt:
            await pending.clear(channel, due, check)
        left = await pending.read(channel)
        report.owed = len(left)

        causes = sorted(due.keys() - left.keys())
        for cause in causes:
            metrics.repaid.labels(cause).inc()
        if causes:
            self._repaid.note(channel, causes)


async def present_marks(tables: Tables, channel: str) -> Marks:
    """Return a channel's marks, none of them of the future.

    If Redis's clock went back after a gap, its mark becomes one of now.
    So a repair waits for the settle time, and not for as long as the clock's step.
    """
    pending = tables.pending
    marks = await pending.read(channel)
    if not marks:
        return marks
    latest = await tables.server.now() + 1000 * CLOCK_TOLERANCE_SECONDS
    future = [cause for cause, marked_at in marks.items() if marked_at > latest]
    if not future:
        return marks
    await pending.renew(channel, future)
    return await pending.read(channel)


def ripe_at(cause: str, marked_at: int, settle_seconds: float) -> float:
    """Return when a reconcile that takes back a mark may begin.

    Both times are milliseconds since 1970.
    """
    seconds = settle_seconds
    if cause == GapCause.FORBIDDEN:
        seconds += STILL_REFUSED_SECONDS
    return marked_at + seconds * 1000
