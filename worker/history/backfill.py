"""Replays history into tallies, newest first; resumes what was interrupted."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
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
from worker.store.batch import batched
from worker.store.progress import Progress
from worker.store.tables import Tables

CHANNEL_CONCURRENCY: Final = 16
"""Channels that are replayed side by side: some eighty requests a second."""
DECODE_BATCH: Final = 25
"""Items that are decoded in one go. Between them other tasks run."""

log = structlog.get_logger(__name__)


class Backfiller:
    """Replays channels, each from its newest action to its oldest."""

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
        """Replay the channels; return the actions read of each.

        Every channel is replayed as far as possible.

        Raises:
            PubNubError: the first failure.
                Another run goes on where this one was.
        """
        room = asyncio.Semaphore(CHANNEL_CONCURRENCY)
        names = sorted(set(channels))
        counts = dict.fromkeys(names, 0)

        async def replay(channel: str) -> None:
            async with room:
                counts[channel] = await self.channel(channel, wanted)

        replays = map(replay, names)
        for failure in await asyncio.gather(*replays, return_exceptions=True):
            if failure:
                raise failure
        return counts

    async def channel(self, channel: str, wanted: Range) -> int:
        """Replay one channel, as a command does; return the actions read."""
        marks = await self._tables.remember(channel)
        actions = await self.replay(channel, wanted)
        if marks and wanted == Range():
            await self._tables.pending.clear(channel, marks)
        return actions

    async def request(self, channels: Collection[str], wanted: Range) -> None:
        """Save that a range with an end is wanted, so that a kill does not forget it.

        Saved progress that covers the range is kept: a task that resumes it
        reads what came since, too.
        """
        assert wanted.until, "a gap ends at a cursor"  # noqa: S101 - for mypy
        saved = await self._tables.progress.read_all(channels)
        kept = {name for name in saved if _covers(saved[name], wanted.since)}
        progress = Progress(wanted.until, wanted.until, wanted.since)
        await self._tables.progress.save(progress, *(set(channels) - kept))

    async def replay(self, channel: str, wanted: Range | None) -> int:
        """Replay what is wanted and what was saved; return the actions read.

        If saved progress covers the range, resume it.
        Otherwise start again over the union of both ranges.
        """
        saved = await self._tables.progress.read(channel)
        if saved is None:
            return await self._start(channel, wanted.since, wanted.until) if wanted else 0
        if wanted is None:
            return await self._resume(channel, saved, None)
        if _covers(saved, wanted.since):
            return await self._resume(channel, saved, wanted.until)
        return await self._start(channel, wanted.since, None)

    async def _start(
        self,
        channel: str,
        since: Timetoken | None,
        until: Timetoken | None,
    ) -> int:
        newest = until or await self._pubnub_time(channel)
        log.debug("backfill_starts", channel=channel, since=since, until=newest)
        progress = Progress(newest, newest, since)
        await self._save(channel, progress)
        return await self._finish(channel, progress)

    async def _resume(self, channel: str, saved: Progress, until: Timetoken | None) -> int:
        """Replay what came since the interrupted run began; then the rest.

        The saved progress stands until the first part is done.
        """
        log.debug("backfill_resumes", channel=channel, actions=saved.actions)
        newest = until or await self._pubnub_time(channel)
        if is_after(newest, saved.newest):
            # Begin a little before, because lists lag behind.
            overlap = round(self._policy.settle_seconds * TICKS_PER_SECOND)
            oldest = shift(saved.newest, -overlap)
            recent = Progress(newest, newest, oldest, saved.actions)
            recent = await self._replay(channel, recent, self._show)
            saved = replace(saved, newest=newest, actions=recent.actions)
            await self._save(channel, saved)
        return await self._finish(channel, saved)

    async def _finish(self, channel: str, progress: Progress) -> int:
        progress = await self._replay(channel, progress, self._save)
        await self._tables.progress.end(channel)
        log.debug("backfill_ends", channel=channel, actions=progress.actions)
        return progress.actions

    async def _pubnub_time(self, channel: str) -> Timetoken:
        return await retry(self._now, channel, self._policy)

    async def _save(self, channel: str, progress: Progress) -> None:
        await self._tables.progress.save(progress, channel)
        await self._show(channel, progress)

    async def _show(self, channel: str, progress: Progress) -> None:
        if self._watch:
            self._watch.reach(channel, progress)

    async def _replay(
        self,
        channel: str,
        progress: Progress,
        note: Callable[[str, Progress], Awaitable[None]],
    ) -> Progress:
        """Apply page by page; ``note`` the progress after each."""
        with Retry(channel, self._policy) as retry:
            while True:
                slices = self._history.slices(channel, progress.next, progress.oldest)
                try:
                    async with aclosing(ahead(slices)) as pages:
                        async for page in pages:
                            progress = await self._apply(channel, page, progress)
                            retry.succeeded()
                            await note(channel, progress)
                            await self._policy.give_way()
                except StaleError as error:
                    log.warning("page_dropped", channel=channel, reason=str(error))
                except PubNubError as error:
                    await retry.after(error)
                else:
                    return progress

    async def _apply(self, channel: str, page: ListSlice, progress: Progress) -> Progress:
        """Apply one page; return the progress after it."""
        if not page.is_certain:
            log.warning("page_stepped_over", channel=channel, below=page.next)
        types = self._policy.counted_types
        decoded: list[Decoded] = []
        for batch in batched(page.actions, DECODE_BATCH):
            decoded += [decode_action(channel, action, types) for action in batch]
            await asyncio.sleep(0)
        await self._applier.apply(decoded, Origin.BACKFILL, page.received_at, page.asked_at)
        actions = progress.actions + len(decoded) - page.repeated
        return replace(progress, next=page.next, actions=actions)


def _covers(saved: Progress, since: Timetoken | None) -> bool:
    """Tell whether a backfill goes back to ``since``, or further."""
    if saved.oldest is None:
        return True
    return since is not None and not is_after(saved.oldest, since)
