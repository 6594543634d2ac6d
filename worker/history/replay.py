"""Applies a channel's history, page by page, newest first."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Final

import structlog

from worker.applying.apply import Applier, StaleError
from worker.applying.retry import Retry, RetryPolicy
from worker.domain.action import Origin
from worker.errors import PubNubError
from worker.source.history import History, ListSlice, ahead
from worker.source.wire import Decoded, decode_action
from worker.store.batch import batched
from worker.store.progress import Progress

DECODE_BATCH: Final = 25
"""Items of a page that are decoded in one go.

Between them other tasks run: the next request above all, and events.
"""

log = structlog.get_logger(__name__)


class Replay:
    """Brings pages of history into the tallies."""

    def __init__(
        self,
        history: History,
        applier: Applier,
        policy: RetryPolicy,
    ) -> None:
        self._history = history
        self._applier = applier
        self._policy = policy

    async def pages(
        self,
        channel: str,
        progress: Progress,
    ) -> AsyncGenerator[Progress, None]:
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

    async def _apply(
        self,
        channel: str,
        page: ListSlice,
        progress: Progress,
    ) -> Progress:
        """Apply one page; return the progress after it."""
        if not page.is_certain:
            log.warning("page_stepped_over", channel=channel, below=page.next)
        decoded = await self._decode(channel, page)
        await self._applier.apply(decoded, Origin.BACKFILL, page.asked_at)
        actions = progress.actions + len(decoded)
        return replace(progress, next=page.next, actions=actions)

    async def _decode(self, channel: str, page: ListSlice) -> list[Decoded]:
        counted_types = self._policy.counted_types
        decoded: list[Decoded] = []
        for batch in batched(page.actions, DECODE_BATCH):
            decoded += [decode_action(channel, action, counted_types) for action in batch]
            await asyncio.sleep(0)
        return decoded
