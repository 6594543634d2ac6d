"""The marks in ``owed`` that a reconcile takes back or sets."""

from collections.abc import Mapping
from typing import Final

import structlog

from worker.domain.position import Range
from worker.reconciliation.report import ReconcileReport
from worker.store.pending_repairs import GapCause
from worker.store.tables import Tables
from worker.telemetry import metrics

STILL_REFUSED_SECONDS: Final = 90.0
"""The age of a ``forbidden`` mark at which its channel is readable again.

While PubNub refuses a channel, its mark is renewed once a minute.
"""

log = structlog.get_logger(__name__)


class ChannelMarks:
    """The marks of channels, before and after a reconcile."""

    def __init__(self, tables: Tables, settle_seconds: float) -> None:
        self._tables = tables
        self._settle_seconds = settle_seconds

    async def due(self, channel: str, began: int) -> dict[str, int]:
        """Return the marks that may be taken back by a reconcile that began then.

        These are the marks that were older than the settle time.
        ``began`` is in milliseconds since 1970, by Redis's clock.
        """
        marks = await self._tables.pending.read(channel)
        settle_seconds = self._settle_seconds
        return {
            cause: marked_at
            for cause, marked_at in marks.items()
            if ripe_at(cause, marked_at, settle_seconds) <= began
        }

    async def settle(
        self,
        report: ReconcileReport,
        wanted: Range,
        due: Mapping[str, int],
    ) -> None:
        """Mark what is left in doubt; take back the marks that are due."""
        await self._mark_doubts(report, wanted)
        await self._take_back(report, due)

    async def _mark_doubts(
        self,
        report: ReconcileReport,
        wanted: Range,
    ) -> None:
        """Mark a channel that is in doubt, or new and seen in part only."""
        channel, tables = report.channel, self._tables
        unknown = await tables.channels.unknown([channel])
        if not report.is_settled:
            await tables.pending.mark([channel], GapCause.UNPROVEN)
        elif unknown and wanted != Range():
            await tables.pending.mark([channel], GapCause.NEW_CHANNEL)
        # Last: a channel that is known already would never count as a new one.
        await tables.channels.add([channel])

    async def _take_back(
        self,
        report: ReconcileReport,
        due: Mapping[str, int],
    ) -> None:
        """Take these marks back, unless something is in doubt."""
        channel, pending = report.channel, self._tables.pending
        if due and not report.is_in_doubt:
            await pending.clear(channel, due)
        left = await pending.read(channel)
        report.owed = len(left)

        causes = sorted(due.keys() - left.keys())
        for cause in causes:
            metrics.repaid.labels(cause).inc()
        if causes:
            log.info("gap_repaid", channel=channel, causes=causes)


def ripe_at(cause: str, marked_at: int, settle_seconds: float) -> float:
    """Return when a reconcile that takes back a mark may begin.

    Both times are milliseconds since 1970.
    """
    seconds = settle_seconds
    if cause == GapCause.FORBIDDEN:
        seconds += STILL_REFUSED_SECONDS
    return marked_at + seconds * 1000
