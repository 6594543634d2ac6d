"""History into tallies: what PubNub lists, newest first, as additions; resumed where it was interrupted."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import replace
from typing import Final

import structlog

from worker.applying.apply import Applier, StaleError
from worker.applying.retry import ProgressWatcher, Retry, RetryPolicy, retry
from worker.domain.action import Origin
from worker.domain.position import TICKS_PER_SECOND, Range, Timetoken, is_after, shift
from worker.errors import PubNubError
from worker.source.history import History, ListSlice, ahead
from worker.source.wire import Decoded, decode_action
from worker.store.batched import batched
from worker.store.pending_repairs import GapCause
from worker.store.progress import Progress
from worker.store.tables import Tables

CHANNEL_CONCURRENCY: Final = 16
"""Each has one request under way: at a fifth of a second each, enough for eighty requests a second."""
DECODE_BATCH: Final = 25
"""Items of a page; between these, what else is ready goes on: the next request above all, and events."""

log = structlog.get_logger(__name__)


class Backfiller:
    """Replays channels, several side by side, all within one request budget."""

    def __init__(
        self,
        history: History,
        now: Callable[[], Awaitable[Timetoken]],
        applier: Applier,
        tables: Tables,
        policy: RetryPolicy,
        watch: ProgressWatcher | None = None,
    ) -> None:
        self._history = history
        self._now = now
        self._applier = applier
        self._tables = tables
        self._policy = policy
        self._watch = watch

    async def run(self, channels: Iterable[str], wanted: Range) -> dict[str, int]:
        """Replay the channels; return how many actions were read of each.

        Raises:
            PubNubError: PubNub refused, or failed too often; run it again and it goes on where it was.
        """
        room = asyncio.Semaphore(CHANNEL_CONCURRENCY)

        async def one(channel: str) -> int:
            async with room:
                return await self.channel(channel, wanted)

        names = sorted(set(channels))
        counts = await asyncio.gather(*map(one, names), return_exceptions=True)
        # Every channel is replayed as far as it goes before the first failure is told.
        for ended in counts:
            if isinstance(ended, BaseException):
                raise ended
        return dict(zip(names, (count for count in counts if isinstance(count, int)), strict=True))

    async def channel(self, channel: str, wanted: Range) -> int:
        """Replay one channel; return how many actions were read.

        A place that covers the range wanted is gone on with, whoever left it; one that does not gives way to a place
        that covers both.
        """
        unknown = await self._tables.channels.unknown([channel])
        if unknown and wanted != Range():
            await self._tables.pending.mark([channel], GapCause.NEW_CHANNEL)
        await self._tables.channels.add([channel])
        saved = await self._tables.progress.read(channel)
        if saved and (
            saved.oldest is None or (wanted.since and not is_after(saved.oldest, wanted.since))
        ):
            return (await self._go_on(channel, saved, wanted.until)).actions
        until = None if saved else wanted.until
        until = until or await self._now_patiently(channel)
        log.info("backfill_starts", channel=channel, since=wanted.since, until=until)
        place = await self._save(channel, Progress(until, until, wanted.since))
        return (await self._finish(channel, place)).actions

    async def resume(self, channel: str) -> bool:
        """Go on with the channel's place, if there is one; tell whether another backfill was asked for meanwhile."""
        saved = await self._tables.progress.read(channel)
        if saved is None:
            return False
        await self._go_on(channel, saved, None)
        return await self._tables.progress.read(channel) is not None

    async def _go_on(self, channel: str, saved: Progress, until: Timetoken | None) -> Progress:
        log.info("backfill_resumes", channel=channel, actions=saved.actions)
        until = until or await self._now_patiently(channel)
        return await self._finish(channel, await self._catch_up(channel, saved, until))

    async def _finish(self, channel: str, place: Progress) -> Progress:
        async with aclosing(self._walk(channel, place)) as places:
            async for reached in places:
                place = await self._save(channel, reached)
        await self._tables.progress.end(channel)
        log.info("backfill_ends", channel=channel, actions=place.actions)
        return place

    async def _catch_up(self, channel: str, saved: Progress, until: Timetoken) -> Progress:
        """Replay what has come since the interrupted run began, and a little before: lists lag behind.

        The interrupted run's place stands until that is done.
        """
        if not is_after(until, saved.newest):
            return saved
        overlap = round(self._policy.settle_seconds * TICKS_PER_SECOND)
        recent = Progress(until, until, shift(saved.newest, -overlap), saved.actions)
        async with aclosing(self._walk(channel, recent)) as places:
            async for recent in places:
                self._tell(channel, recent)
        return await self._save(channel, replace(saved, newest=until, actions=recent.actions))

    async def _walk(self, channel: str, place: Progress) -> AsyncGenerator[Progress, None]:
        """Yield the place after each page, once it is applied."""
        with Retry(channel, self._policy) as retry:
            while True:
                try:
                    async with aclosing(
                        ahead(self._history.slices(channel, place.next, place.oldest))
                    ) as slices:
                        async for slice in slices:
                            place = await self._apply(channel, slice, place)
                            retry.succeeded()
                            yield place
                except StaleError as error:
                    log.warning("page_dropped", channel=channel, reason=str(error))
                except PubNubError as error:
                    await retry.after(error)
                else:
                    return

    async def _apply(self, channel: str, slice: ListSlice, place: Progress) -> Progress:
        if not slice.is_certain:
            log.warning("page_stepped_over", channel=channel, below=slice.next)
        decoded: list[Decoded] = []
        for some in batched(slice.actions, DECODE_BATCH):
            decoded += [
                decode_action(channel, action, self._policy.counted_types) for action in some
            ]
            await asyncio.sleep(0)
        await self._applier.apply(decoded, Origin.BACKFILL, slice.asked_at)
        return replace(place, next=slice.next, actions=place.actions + len(decoded))

    async def _save(self, channel: str, place: Progress) -> Progress:
        await self._tables.progress.save(place, channel)
        self._tell(channel, place)
        return place

    def _tell(self, channel: str, place: Progress) -> None:
        if self._watch:
            self._watch.reach(channel, place)

    async def _now_patiently(self, channel: str) -> Timetoken:
        return await retry(self._now, channel, self._policy)
