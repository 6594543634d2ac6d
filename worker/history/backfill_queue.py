"""Backfills that a running worker wants, also after a restart."""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from typing import Final

import structlog

from worker.domain.position import Cursor
from worker.errors import ForbiddenError
from worker.history.backfill import Backfiller
from worker.store.progress import Progress
from worker.store.tables import Tables

CONCURRENCY: Final = 8
"""Channels that are backfilled side by side."""
REFUSED_SECONDS: Final = 60.0
"""Seconds until a refused channel is tried again."""
ABANDONED_SECONDS: Final = 1800.0
"""Seconds without progress until a backfill is taken over."""

log = structlog.get_logger(__name__)


class BackfillQueue:
    """A queue of channels to backfill.

    Each request is written in Redis, so that a kill forgets none.
    """

    def __init__(self, backfiller: Backfiller, tables: Tables) -> None:
        self._backfiller = backfiller
        self._tables = tables
        self._waiting: asyncio.Queue[str] = asyncio.Queue()
        self._queued: set[str] = set()
        self._running: set[str] = set()
        self._again: set[str] = set()
        self._postponed: dict[str, asyncio.TimerHandle] = {}
        """One timer for each channel that PubNub refuses; new gaps wait for it."""
        self._has_started = False

    @property
    def is_idle(self) -> bool:
        """Whether all that Redis and callers wanted is done or refused."""
        return self._has_started and not (self._queued or self._running)

    async def request(self, channels: Collection[str], cursor: Cursor) -> None:
        """Ask for all that PubNub lists of these channels.

        The request is durable when this returns. A backfill that runs
        does not count: what is missing may lie behind it already.
        """
        table, until = self._tables.progress, cursor.timetoken
        names = set(channels)
        running = names & self._running
        saved = await table.read_all(names)
        # Saved progress without an end is kept: it began before the gap.
        # A task that resumes it reads what came since, too.
        kept = {name for name in saved if saved[name].oldest is None}
        running |= names & self._running
        await table.save(Progress(until, until), *(names - running - kept))
        # Also the backfills that began meanwhile. One that has ended meanwhile begins again.
        running |= names & self._running
        await table.ask_again(until, *running)
        # Last: a backfill that ended meanwhile does not know of the request.
        self.note(channels)

    def note(self, channels: Collection[str]) -> None:
        """Look for saved progress that no task works on."""
        running = self._running & set(channels)
        self._again |= running
        self._enqueue(set(channels) - running - self._postponed.keys())

    async def run(self) -> None:
        """Backfill what was interrupted or is asked for, until cancelled."""
        interrupted = await self._interrupted()
        self._enqueue(interrupted)
        self._has_started = True
        async with asyncio.TaskGroup() as group:
            group.create_task(self._take_over(interrupted))
            for _ in range(CONCURRENCY):
                group.create_task(self._work())

    async def _take_over(self, before: Mapping[str, Progress]) -> None:
        """Go on with backfills of workers that are gone."""
        while True:
            await asyncio.sleep(ABANDONED_SECONDS)
            progress = await self._interrupted()
            unchanged = progress.items() & before.items()
            abandoned = {channel for channel, _ in unchanged}
            self._enqueue(abandoned - self._running - self._postponed.keys())
            before = progress

    async def _work(self) -> None:
        while True:
            channel = await self._waiting.get()
            self._queued.discard(channel)
            self._running.add(channel)
            try:
                is_wanted_again = await self._backfiller.resume(channel)
                if is_wanted_again or channel in self._again:
                    self._again.discard(channel)
                    self._enqueue([channel])
            except ForbiddenError as error:
                self._postpone(channel, error)
            finally:
                self._running.discard(channel)

    def _postpone(self, channel: str, error: ForbiddenError) -> None:
        """Try the channel later; its progress stays."""
        log.warning(
            "backfill_refused",
            channel=channel,
            retry_seconds=REFUSED_SECONDS,
            reason=str(error),
        )
        loop = asyncio.get_running_loop()
        self._postponed[channel] = loop.call_later(REFUSED_SECONDS, self._retry, channel)

    def _retry(self, channel: str) -> None:
        del self._postponed[channel]
        self._enqueue([channel])

    async def _interrupted(self) -> dict[str, Progress]:
        channels = await self._tables.channels.all()
        return await self._tables.progress.read_all(channels)

    def _enqueue(self, channels: Iterable[str]) -> None:
        for channel in sorted(set(channels) - self._queued):
            self._queued.add(channel)
            self._waiting.put_nowait(channel)
