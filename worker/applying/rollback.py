"""What follows when Redis turns out to hold an older state: every channel is owed, before anything else is written."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import structlog

from worker.store.marks import GapCause, Marks
from worker.store.rollback_detector import RollbackDetector

log = structlog.get_logger(__name__)


class Pool(Protocol):
    """Connections to Redis."""

    async def disconnect(self) -> None:
        """End them all, those in use as well."""


class RollbackRecovery:
    """Marks every channel, then lets this process go on with Redis as it is."""

    def __init__(
        self, rollback_detector: RollbackDetector, marks: Marks, followed: Collection[str]
    ) -> None:
        """``marks`` are on a client of their own, which speaks to whatever server answers."""
        self._rollback_detector = rollback_detector
        self._marks = marks
        self._followed = frozenset(followed)
        self._turn = asyncio.Lock()
        self.heard: list[Callable[[Collection[str]], None]] = []
        """Who is told which channels owe."""
        self.pools: Sequence[Pool] = ()
        """Connections that may still lead to the server of before, which may even take writes."""

    async def run(self) -> None:
        """Mark all channels Redis knows, this process has written to, or is to follow.

        Raises:
            RedisUnavailableError: Redis is away; it is suspect still.
        """
        async with self._turn:
            if not self._rollback_detector.is_suspect:
                return
            await self._connect_anew()
            # The server first: one that takes its place meanwhile is another one, and is noticed.
            server = await self._marks.server()
            channels = (
                await self._marks.channels() | self._rollback_detector.channels | self._followed
            )
            await self._marks.owe(channels, GapCause.REDIS_WENT_BACK)
            await self._marks.remember(channels)
            await self._connect_anew()
            self._rollback_detector.accept(server)
            await (
                self._connect_anew()
            )  # one may have been greeted meanwhile, as the server of before
            log.warning("gap", cause=GapCause.REDIS_WENT_BACK.value, channels=len(channels))
            for hear in self.heard:
                hear(channels)

    async def _connect_anew(self) -> None:
        for pool in self.pools:
            await pool.disconnect()
