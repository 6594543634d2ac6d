"""Replays history into tallies: newest first, as additions.

A replay that was interrupted goes on where it was.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import replace
from typing import Final

import structlog

from worker.applying.apply import Applier
from worker.applying.retry import ProgressWatcher, Retry, RetryPolicy, retry
from worker.domain.action import Origin
from worker.domain.position import TICKS_PER_SECOND, Range, Timetoken, is_after, shift
from worker.errors import PubNubError, StaleError
from worker.source.history import History, ListSlice, ahead
from worker.source.wire import Decoded, decode_action
from worker.store.batched import batched
from worker.store.pending_repairs import GapCause
from worker.store.progress import Progress
from worker.store.tables import Tables

CHANNEL_CONCURRENCY: Final = 16
"""Channels that are replayed side by side.

Each has one request under way.
At a fifth of a second each, that is enough for eighty requests a second.
"""
DECODE_BATCH: Final = 25
"""Items of a page that are decoded in one go.

Between them other tasks run: the next request above all, and events.
"""

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
        self._replay = _Replay(history, applier, policy)
        self._tables = tables
        self._policy = policy
        self._watch = watch

    async def run(self, channels: Iterable[str], wanted: Range) -> dict[str, int]:
        """Replay the channels; return how many actions were read of each.

        Every channel is replayed as far as possible.
        Then the first failure is raised.

        Raises:
            PubNubError: PubNub refused, or failed too often.
                Another run goes on where this one was.
        """
        room = asyncio.Semaphore(CHANNEL_CONCURRENCY)
        counts: dict[str, int] = {}

        async def replay(channel: str) -> None:
            async with room:
                counts[channel] = await self.channel(channel, wanted)

        replays = [replay(channel) for channel in sorted(set(channels))]
        for failure in await asyncio.gather(*replays, return_exceptions=True):
            if failure:
                raise failure
        return counts

    async def channel(self, channel: str, wanted: Range) -> int:
        """Replay one channel; return how many actions were read.

        If saved progress covers the range, resume it.
        Otherwise start again over the union of both ranges.
        """
        await self._remember(channel, wanted)
        saved = await self._tables.progress.read(channel)
        if saved and _covers(saved, wanted.since):
            progress = await self._resume(channel, saved, wanted.until)
        else:
            until = None if saved else wanted.until
            progress = await self._start(channel, wanted.since, until)
        return progress.actions

    async def resume(self, channel: str) -> bool:
        """Go on with the channel's saved progress, if there is any.

        Return whether another backfill was asked for meanwhile.
        """
        saved = await self._tables.progress.read(channel)
        if saved is None:
            return False
        await self._resume(channel, saved, None)
        return await self._tables.progress.read(channel) is not None

    async def _remember(self, channel: str, wanted: Range) -> None:
        """Add the channel to those ever seen.

        A new channel of which only a part is replayed needs a repair.
        """
        unknown = await self._tables.channels.unknown([channel])
        if unknown and wanted != Range():
            await self._tables.pending.mark([channel], GapCause.NEW_CHANNEL)
        await self._tables.channels.add([channel])

    async def _start(
        self, channel: str, since: Timetoken | None, until: Timetoken | None
    ) -> Progress:
        until = until or await self._pubnub_time(channel)
        log.info("backfill_starts", channel=channel, since=since, until=until)
        progress = Progress(until, until, since)
        await self._save(channel, progress)
        return await self._finish(channel, progress)

    async def _resume(self, channel: str, saved: Progress, until: Timetoken | None) -> Progress:
        log.info("backfill_resumes", channel=channel, actions=saved.actions)
        until = until or await self._pubnub_time(channel)
        progress = await self._catch_up(channel, saved, until)
        return await self._finish(channel, progress)

    async def _finish(self, channel: str, progress: Progress) -> Progress:
        """Replay what is left, and save how far it has come after each page."""
        async with aclosing(self._replay.pages(channel, progress)) as pages:
            async for reached in pages:
                progress = reached
                await self._save(channel, progress)
        await self._tables.progress.end(channel)
        log.info("backfill_ends", channel=channel, actions=progress.actions)
        return progress

    async def _catch_up(self, channel: str, saved: Progress, until: Timetoken) -> Progress:
        """Replay what has come since the interrupted run began.

        Begin a little before, because lists lag behind.
        The progress of the interrupted run stands until that is done.
        """
        if not is_after(until, saved.newest):
            return saved
        overlap = round(self._policy.settle_seconds * TICKS_PER_SECOND)
        oldest = shift(saved.newest, -overlap)
        recent = Progress(until, until, oldest, saved.actions)
        async with aclosing(self._replay.pages(channel, recent)) as pages:
            async for reached in pages:
                recent = reached
                self._report(channel, recent)

        progress = replace(saved, newest=until, actions=recent.actions)
        await self._save(channel, progress)
        return progress

    async def _save(self, channel: str, progress: Progress) -> None:
        await self._tables.progress.save(progress, channel)
        self._report(channel, progress)

    def _report(self, channel: str, progress: Progress) -> None:
        if self._watch:
            self._watch.reach(channel, progress)

    async def _pubnub_time(self, channel: str) -> Timetoken:
        return await retry(self._now, channel, self._policy)


class _Replay:
    """Applies the pages of a channel's history, newest first."""

    def __init__(self, history: History, applier: Applier, policy: RetryPolicy) -> None:
        self._history = history
        self._applier = applier
        self._policy = policy

    async def pages(self, channel: str, progress: Progress) -> AsyncGenerator[Progress, None]:
        """Yield the progress after each page, once the page is applied.

        Raises:
            PubNubError: PubNub refused, or failed too often.
        """
        with Retry(channel, self._policy) as retry:
            while True:
                slices = self._history.slices(channel, progress.next, progress.oldest)
                try:
                    async with aclosing(ahead(slices)) as pages:
                        async for page in pages:
                            progress = await self._apply(channel, page, progress)
                            retry.succeeded()
                            yield progress
                except StaleError as error:
                    log.warning("page_dropped", channel=channel, reason=str(error))
                except PubNubError as error:
                    await retry.after(error)
                else:
                    return

    async def _apply(self, channel: str, page: ListSlice, progress: Progress) -> Progress:
        """Apply one page; return the progress after it."""
        if not page.is_certain:
            log.warning("page_stepped_over", channel=channel, below=page.next)
        decoded: list[Decoded] = []
        for batch in batched(page.actions, DECODE_BATCH):
            types = self._policy.counted_types
            decoded += [decode_action(channel, action, types) for action in batch]
            await asyncio.sleep(0)
        await self._applier.apply(decoded, Origin.BACKFILL, page.asked_at)
        actions = progress.actions + len(decoded)
        return replace(progress, next=page.next, actions=actions)


def _covers(saved: Progress, since: Timetoken | None) -> bool:
    """Tell whether a backfill goes back to ``since``, or further."""
    if saved.oldest is None:
        return True
    return since is not None and not is_after(saved.oldest, since)
