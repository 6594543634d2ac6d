"""Marking what may have been missed, before anything passes over it."""

from collections.abc import Awaitable, Callable, Collection

import structlog

from worker.applying.apply import Applier
from worker.domain.position import Cursor
from worker.store.marks import GapCause, Marks

log = structlog.get_logger(__name__)

Repair = Callable[[Collection[str], Cursor | None], Awaitable[None]]
"""Hears of channels that owe, and asks for a backfill up to the cursor, if there is one; durable when it returns."""


class Gaps:
    """Marks channels as owed, and has them repaired."""

    def __init__(self, marks: Marks, applier: Applier, repair: Repair) -> None:
        self._marks = marks
        self._applier = applier
        self._repair = repair

    async def owe(
        self,
        channels: Collection[str],
        gap: GapCause,
        cursor: Cursor | None,
        *,
        is_new: bool = True,
    ) -> None:
        """Mark the channels, ask for their repair, and remember them; all durable, in this order, when it returns.

        Remembered last: a channel that is known already would never be met as a new one. A gap that only goes on is
        not ``is_new``: its mark is renewed, and nothing is said.
        """
        if is_new:
            log.warning("gap", cause=gap.value, channels=len(channels))
        await self._applier.insist(lambda: self._marks.owe(channels, gap, is_new=is_new))
        await self._applier.insist(lambda: self._repair(channels, cursor))
        await self._applier.insist(lambda: self._marks.remember(channels))

    async def discover(self, channels: Collection[str], cursor: Cursor | None) -> None:
        """Take in channels that a group or a wildcard brings; those nobody has met are owed their past."""
        if unknown := await self._applier.insist(lambda: self._marks.unknown(channels)):
            await self.owe(unknown, GapCause.NEW_CHANNEL, cursor)
