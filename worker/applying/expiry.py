"""Forgetting messages that are older than the retention."""

import asyncio
from typing import Final

import structlog

from worker.applying.apply import Applier
from worker.store.marks import Marks
from worker.store.store import Store

SWEEP_SECONDS: Final = 3600.0

log = structlog.get_logger(__name__)


class Expiry:
    """Goes over all channels ever seen, once an hour."""

    def __init__(self, store: Store, marks: Marks, applier: Applier) -> None:
        self._store = store
        self._marks = marks
        self._applier = applier

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            await self.once()
            await asyncio.sleep(SWEEP_SECONDS)

    async def once(self) -> int:
        """Sweep every channel; return how many messages went."""
        swept = 0
        for channel in sorted(await self._applier.insist(self._marks.channels)):
            swept += await self._applier.insist(lambda channel=channel: self._store.sweep(channel))  # type: ignore[misc]
        if swept:
            log.info("swept", messages=swept)
        return swept
