"""Backfills that a running worker asks for: beside live reading, and again after a restart that interrupted them."""

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
REFUSED_SECONDS: Final = 60.0
"""After how long a channel whose history PubNub refuses is asked about again."""

ABANDONED_SECONDS: Final = 1800.0
"""After how long a backfill that has not come on is somebody else's."""

log = structlog.get_logger(__name__)


class BackfillQueue:
    """A queue of channels to backfill. That they wait is written in Redis, so a kill forgets none."""

    def __init__(self, backfill: Backfiller, tables: Tables) -> None:
        self._backfill = backfill
        self._tables = tables
        self._waiting: asyncio.Queue[str] = asyncio.Queue()
        self._queued: set[str] = set()
        self._running: set[str] = set()
        self._again: set[str] = set()
        self._has_looked = False

    @property
    def is_idle(self) -> bool:
        """Whether everything that was wanted, also before this process began, has been done or refused."""
        return self._has_looked and not self._queued and not self._running

    async def request(self, channels: Collection[str], cursor: Cursor) -> None:
        """Ask for all that PubNub lists of these channels; durable when this returns.

        A backfill that has begun does not count: it may have passed already what is missing.
        """
        running = self._running & set(channels)
        idle = set(channels) - running
        places = await self._tables.progress.read_all(idle)
        # A place of everything is older than the gap; whoever resumes it reads what came since, too.
        without = [name for name in idle if name not in places or places[name].oldest is not None]
        await self._tables.progress.save(Progress(cursor.timetoken, cursor.timetoken), *without)
        await self._tables.progress.ask_again(cursor.timetoken, *running)
        self.note(channels)  # one that ended while it was asked for another has not heard of that

    def note(self, channels: Collection[str]) -> None:
        """Hear that there may be places of these channels which nobody is at."""
        running = self._running & set(channels)
        self._again |= running
        self._enqueue(set(channels) - running)

    async def run(self) -> None:
        """Backfill what was interrupted, then what is asked for, until cancelled."""
        places = await self._interrupted()
        self._enqueue(places)
        self._has_looked = True
        async with asyncio.TaskGroup() as group:
            group.create_task(self._take_up(places))
            for _ in range(CONCURRENCY):
                group.create_task(self._work())

    async def _take_up(self, before: Mapping[str, Progress]) -> None:
        """Go on, once in a while, with places that nobody has moved: of workers that are gone."""
        while True:
            await asyncio.sleep(ABANDONED_SECONDS)
            places = await self._interrupted()
            self._enqueue(
                name for name in places.keys() - self._running if places[name] == before.get(name)
            )
            before = places

    async def _work(self) -> None:
        while True:
            channel = await self._waiting.get()
            self._queued.discard(channel)
            self._running.add(channel)
            try:
                is_again = await self._backfill.resume(channel)
            except ForbiddenError as error:
                # Its place stands; the slot is for channels that may be read.
                log.warning(
                    "backfill_refused",
                    channel=channel,
                    retry_seconds=REFUSED_SECONDS,
                    reason=str(error),
                )
                asyncio.get_running_loop().call_later(REFUSED_SECONDS, self._enqueue, [channel])
            else:
                if is_again or channel in self._again:
                    self._again.discard(channel)
                    self._enqueue([channel])
            finally:
                self._running.discard(channel)

    async def _interrupted(self) -> dict[str, Progress]:
        return await self._tables.progress.read_all(await self._tables.channels.all())

    def _enqueue(self, channels: Iterable[str]) -> None:
        for channel in sorted(set(channels) - self._queued):
            self._queued.add(channel)
            self._waiting.put_nowait(channel)
