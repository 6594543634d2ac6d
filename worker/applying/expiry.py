"""Deletes messages that are older than the retention."""

import asyncio
from typing import Final

import structlog

from worker.store.store import Store
from worker.store.tables import Tables

EXPIRY_SECONDS: Final = 3600.0
"""Seconds between two passes over all channels."""

log = structlog.get_logger(__name__)


class Expiry:
    """Goes over all channels ever seen, once an hour."""

    def __init__(self, store: Store, tables: Tables) -> None:
        self._store = store
        self._tables = tables

    async def run(self) -> None:
        """Delete until cancelled."""
        while True:
            await self.run_once()
            await asyncio.sleep(EXPIRY_SECONDS)

    async def run_once(self) -> int:
        """Delete the old messages of every channel.

        Return how many messages were deleted.
        """
        deleted = 0
        for channel in sorted(await self._tables.channels.all()):
            deleted += await self._store.sweep(channel)
        if deleted:
            log.info("swept", messages=deleted)
        return deleted
