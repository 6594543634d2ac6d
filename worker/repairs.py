"""Backfills that a running worker asks for: beside live reading, and again after a restart that interrupted them."""

import asyncio
from collections.abc import Collection, Iterable
from typing import Final

import structlog

from worker.apply import Applier
from worker.backfill import Backfill, Range
from worker.domain.position import Cursor
from worker.store.marks import Marks, Progress

AT_ONCE: Final = 8

log = structlog.get_logger(__name__)


class Repairs:
    """A queue of channels to backfill. That they wait is written in Redis, so a kill forgets none."""

    def __init__(self, backfill: Backfill, marks: Marks, applier: Applier) -> None:
        self._backfill = backfill
        self._marks = marks
        self._applier = applier
        self._waiting: asyncio.Queue[str] = asyncio.Queue()
        self._queued: set[str] = set()

    async def request(self, channels: Collection[str], cursor: Cursor) -> None:
        """Ask for all that PubNub lists of these channels; durable when this returns."""
        for channel in sorted(channels):
            # A place that is there already is older than the gap: whoever resumes it reads what came since, too.
            if await self._marks.progress(channel) is None:
                await self._marks.save_progress(channel, Progress(cursor.timetoken, cursor.timetoken))
        self._enqueue(channels)

    async def run(self) -> None:
        """Backfill what was interrupted, then what is asked for, until cancelled."""
        self._enqueue(await self._applier.insist(self._interrupted))
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            channel = await self._waiting.get()
            self._queued.discard(channel)
            await self._backfill.channel(channel, Range())

    async def _interrupted(self) -> list[str]:
        return [channel for channel in await self._marks.channels() if await self._marks.progress(channel)]

    def _enqueue(self, channels: Iterable[str]) -> None:
        for channel in sorted(set(channels) - self._queued):
            self._queued.add(channel)
            self._waiting.put_nowait(channel)
