"""Deletes what has expired, and what Redis does not delete by itself."""

import asyncio
from typing import Final

import structlog

from worker.applying.old_tombstones import OldTombstones
from worker.errors import ScriptRefusedError
from worker.store.store import Store
from worker.store.tables import Tables

EXPIRY_SECONDS: Final = 3600.0
"""Seconds between two passes over all channels."""

log = structlog.get_logger(__name__)


class Expiry:
    """Goes over all channels ever seen, once an hour."""

    def __init__(
        self,
        store: Store,
        tables: Tables,
        old_tombstones: OldTombstones,
    ) -> None:
        self._store = store
        self._tables = tables
        self._old_tombstones = old_tombstones

    async def run(self) -> None:
        """Delete until cancelled."""
        while True:
            await self.run_once()
            await asyncio.sleep(EXPIRY_SECONDS)

    async def run_once(self) -> int:
        """Delete the old messages and the old tombstones of every channel.

        Return how many messages were deleted.
        """
        channels = sorted(await self._tables.channels.all())
        messages = 0
        for channel in channels:
            messages += await self._sweep(channel)
        if messages:
            log.info("swept", messages=messages)

        tombstones = await self._old_tombstones.delete(channels)
        if tombstones:
            log.info("tombstones_deleted", tombstones=tombstones)
        return messages

    async def _sweep(self, channel: str) -> int:
        try:
            return await self._store.sweep(channel)
        except ScriptRefusedError as error:
            # One channel must not keep the others from being swept.
            log.warning("expiry_failed", channel=channel, reason=str(error))
            return 0
