"""Reads PubNub's list of a channel, from any start downwards."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Final

import structlog

from worker.applying.forgotten_users import without_users
from worker.applying.retry import ProgressWatcher, Retry, RetryPolicy, retry
from worker.domain.action import Added
from worker.domain.position import TICKS_PER_SECOND, Range, Timetoken, is_after, shift
from worker.domain.reconciliation import Coverage
from worker.errors import PubNubError, RolledBackError, StaleError
from worker.source.history import History, ListSlice, ahead
from worker.source.wire import decode_action
from worker.store.progress import Progress

TakeSlice = Callable[[ListSlice], Awaitable[None]]
BEYOND_TICKS: Final = 86_400 * TICKS_PER_SECOND
"""A list begins a day ahead: our clock may be behind."""

log = structlog.get_logger(__name__)


class ListReader:
    """Reads lists, and PubNub's clock; tries again as its policy says."""

    def __init__(
        self,
        history: History,
        now: Callable[[], Awaitable[Timetoken]],
        policy: RetryPolicy,
        watch: ProgressWatcher | None = None,
    ) -> None:
        self._history = history
        self._now = now
        self.policy = policy
        self._watch = watch

    async def now(self, channel: str) -> Timetoken:
        """Return PubNub's clock, or a little less: see ``SteadyClock``."""
        return await retry(self._now, channel, self.policy)

    async def start(self, channel: str) -> Timetoken:
        """Return a timetoken above everything that is listed."""
        return shift(await self.now(channel), BEYOND_TICKS)

    async def is_listed(self, channel: str) -> bool:
        """Tell whether PubNub lists anything of a channel."""
        start = await self.start(channel)
        slices = self.slices(channel, start, Coverage(), is_expected=False)
        async with aclosing(slices):
            async for slice in slices:
                return bool(slice and slice.actions)
        return False

    async def read(
        self,
        channel: str,
        wanted: Range,
        coverage: Coverage,
        take: TakeSlice,
        *,
        is_expected: bool,
    ) -> None:
        """Read a range, newest first; note in ``coverage`` what was seen.

        If ``take`` raises ``StaleError``, the slice is read again.

        Raises:
            PubNubError: a request failed too often, or was refused.
                Below the last slice nothing was seen.
            RolledBackError: from ``take``.
        """
        with Retry(channel, self.policy) as retry:
            start = newest = wanted.until or await self.start(channel)
            while True:
                slices = ahead(
                    self._history.slices(channel, start, wanted.since, is_expected=is_expected)
                )
                try:
                    async with aclosing(slices):
                        async for slice in slices:
                            await take(slice)
                            retry.succeeded()
                            _note(coverage, slice, start)
                            start = slice.next
                            is_expected = slice.leads_on
                            if self._watch:
                                reached = Progress(newest, start, actions=coverage.actions)
                                self._watch.reach(channel, reached)
                            await self.policy.give_way()
                except RolledBackError:
                    raise
                except StaleError as error:
                    log.warning("page_dropped", channel=channel, reason=str(error))
                except PubNubError as error:
                    await retry.after(error)
                else:
                    coverage.requests += 1  # the empty page at the end
                    return

    async def slices(
        self,
        channel: str,
        start: Timetoken,
        coverage: Coverage,
        *,
        is_expected: bool,
    ) -> AsyncGenerator[ListSlice | None, None]:
        """Yield slices from ``start`` downwards; None at the end of the list.

        If something ``is_expected``, an empty answer is asked for again.

        Raises:
            PubNubError: a request failed too often, or was refused.
        """
        with Retry(channel, self.policy) as retry:
            is_first = True
            while True:
                slices = self._history.slices(channel, start, None, is_expected=is_expected)
                try:
                    async with aclosing(slices):
                        async for slice in slices:
                            retry.succeeded()
                            coverage.requests += slice.requests
                            if is_first and _is_empty(slice):
                                break
                            start = slice.next
                            is_first = False
                            is_expected = slice.leads_on
                            yield slice
                except PubNubError as error:
                    await retry.after(error)
                else:
                    coverage.requests += 1
                    yield None
                    return


def _note(coverage: Coverage, slice: ListSlice, start: Timetoken) -> None:
    """Note how far a slice came.

    A list that stays empty is seen as empty.
    """
    if slice.span:
        oldest, newest = slice.span
        coverage.edges += [oldest] if coverage.edges else [newest, oldest]
    has_items = bool(coverage.listed or slice.actions)
    if has_items and not slice.is_certain:
        coverage.unseen.append(_unseen_stretch(slice, start))
    coverage.listed += len(slice.actions)
    coverage.repeated += slice.repeated
    coverage.requests += slice.requests


def _unseen_stretch(slice: ListSlice, start: Timetoken) -> Range:
    """Return the stretch that an uncertain slice may not have shown."""
    until = shift(start, 1)
    if is_after(start, slice.next):
        return Range(shift(slice.next, -1), until)
    return Range(None, until)


def _is_empty(slice: ListSlice) -> bool:
    """Tell whether PubNub listed nothing, again and again."""
    return not slice.actions and not slice.is_certain


async def additions(
    channel: str,
    slice: ListSlice,
    policy: RetryPolicy,
) -> list[Added]:
    """Return the additions of a slice that are counted.

    Malformed items, and those of forgotten users, are left out.
    """
    forgotten = await policy.forgotten_users()
    types = policy.counted_types
    decoded = [decode_action(channel, action, types) for action in slice.actions]
    added = [item for item in decoded if isinstance(item, Added)]
    return without_users(forgotten, added) if forgotten else added
