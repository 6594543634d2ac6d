"""The recovery from a Redis that went back to an older state."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import structlog

from worker.store.pending_repairs import GapCause
from worker.store.rollback_detector import RollbackDetector
from worker.store.tables import Tables

log = structlog.get_logger(__name__)


class Pool(Protocol):
    """Connections to Redis, as redis-py pools them."""

    async def disconnect(self) -> None:
        """End them all, also those in use."""


class RollbackRecovery:
    """Marks every channel for repair, then trusts Redis as it is."""

    def __init__(
        self,
        rollback_detector: RollbackDetector,
        tables: Tables,
        followed: Collection[str],
        pools: Sequence[Pool] = (),
    ) -> None:
        """``tables`` are on a client that accepts every server.

        ``followed`` are the configured channels.
        ``pools`` may still lead to the old server.
        """
        self._rollback_detector = rollback_detector
        self._tables = tables
        self._followed = frozenset(followed)
        self._pools = pools
        self._turn = asyncio.Lock()
        self._listeners: list[Callable[[Collection[str]], None]] = []

    def add_listener(self, listener: Callable[[Collection[str]], None]) -> None:
        """Call this with the marked channels, from now on."""
        self._listeners.append(listener)

    async def run(self) -> None:
        """Mark all channels that may lack events.

        These are the channels that Redis knows,
        those that this process wrote to, and those that it follows.

        Raises:
            RedisUnavailableError: Redis is away, and still under suspicion.
        """
        async with self._turn:
            if self._rollback_detector.is_suspect:
                await self._recover()

    async def _recover(self) -> None:
        await self._disconnect()
        # Read first: so a server that takes its place meanwhile is noticed.
        server = await self._tables.server.run_id()
        known = await self._tables.channels.all()
        # Read last: a write that was under way ends meanwhile.
        written = self._rollback_detector.channels
        channels = known | written | self._followed
        await self._tables.pending.mark(channels, GapCause.REDIS_WENT_BACK)
        await self._tables.channels.add(channels)
        await self._disconnect()
        self._rollback_detector.accept(server)
        # A connection to the old server may have been made meanwhile.
        await self._disconnect()
        cause = GapCause.REDIS_WENT_BACK.value
        log.warning("gap", cause=cause, channels=len(channels))
        for listener in self._listeners:
            listener(channels)

    async def _disconnect(self) -> None:
        for pool in self._pools:
            await pool.disconnect()
