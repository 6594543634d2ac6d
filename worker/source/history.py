"""A channel's list of actions, page by page, newest first."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import KW_ONLY, dataclass
from typing import Final

from worker.domain.position import Timetoken, is_after, order, shift
from worker.errors import PubNubError
from worker.source.client import Client, Page
from worker.source.wire import action_timetoken

PAGE_SIZE: Final = 100
TRIES: Final = 3
"""How often a page that does not advance is asked for.

After that, its edge is stepped over.
"""
EMPTY_RETRIES: Final = 5
"""How often an empty page is asked for where something must be."""

Span = tuple[Timetoken, Timetoken]
"""The oldest and the newest action timetoken of some items."""


@dataclass(frozen=True, slots=True)
class ListSlice:
    """The raw actions of one page.

    They lie between ``next`` (inclusive) and the end of the slice before.
    ``next`` is also the ``start`` of the next request.
    ``span`` is None if no action has a readable timetoken.
    ``asked_at`` is the time of the request, in seconds of the clock.
    """

    actions: tuple[object, ...]
    span: Span | None
    next: Timetoken
    asked_at: float
    _: KW_ONLY
    is_certain: bool = True
    """Whether the page shows everything in its range.

    False for an edge that was stepped over, and for an empty page where
    something must be.
    """
    leads_on: bool = True
    """Whether the next page must repeat the oldest action of this one."""
    requests: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reply:
    """One page below ``start``, and what it says about the next one."""

    page: Page
    span: Span | None
    start: Timetoken
    asked_at: float
    requests: int
    """How often the page was asked for."""

    @property
    def is_end(self) -> bool:
        """Whether nothing lies below ``start``."""
        return not self.page.actions and self.page.more_start is None

    @property
    def edge(self) -> Timetoken | None:
        """The older end of the page; None if the page does not show it."""
        if self.page.more_start is not None:
            return self.page.more_start
        return self.span[0] if self.span else None

    @property
    def below(self) -> Timetoken:
        """The start of the page below this one. They overlap at the edge."""
        return shift(self.edge or self.start, 1)

    @property
    def advances(self) -> bool:
        """Whether the page below begins at an older timetoken."""
        return is_after(self.start, self.below)

    @property
    def is_overlap(self) -> bool:
        """Whether the page only repeats the oldest timetoken of the page before.

        If few actions have this timetoken, the list ends with them.
        """
        page = self.page
        if page.more_start is not None or len(page.actions) >= PAGE_SIZE:
            return False
        newest = shift(self.start, -1)
        return all(action_timetoken(action) == newest for action in page.actions)

    def tries(self, *, is_expected: bool) -> int:
        """Return how often such a page comes before it is believed."""
        if self.is_end:
            return EMPTY_RETRIES if is_expected else 1
        if self.edge is None or self.advances or self.is_overlap:
            return 1
        return TRIES

    def slice(self) -> ListSlice:
        """Return the page as a slice with a known edge."""
        advances = self.advances
        return ListSlice(
            self.page.actions,
            self.span,
            self.below if advances else shift(self.start, -1),
            self.asked_at,
            is_certain=advances or self.is_overlap,
            leads_on=advances,
            requests=self.requests,
        )

    def last_slice(self) -> ListSlice:
        """Return the page as a slice whose edge is unknown.

        The page is empty, or its actions have no readable timetoken.
        """
        return ListSlice(
            self.page.actions,
            None,
            self.start,
            self.asked_at,
            is_certain=False,
            requests=self.requests,
        )


class History:
    """Reads a channel's list of actions."""

    def __init__(
        self,
        client: Client,
        take: Callable[[], Awaitable[None]],
        clock: Callable[[], float],
    ) -> None:
        """``take`` waits until the budget allows one more request."""
        self._client = client
        self._take = take
        self._clock = clock

    async def slices(
        self,
        channel: str,
        start: Timetoken,
        end: Timetoken | None,
        *,
        is_expected: bool = False,
    ) -> AsyncGenerator[ListSlice, None]:
        """Yield slices from ``start`` (exclusive) back to ``end`` (inclusive).

        ``end`` None stands for the very first action.

        Two actions can share one timetoken, and ``start`` is exclusive.
        So pages overlap by one timetoken, and an action can come twice.

        A short page proves nothing. Only an empty page without ``more``
        is the end. Where something must be, an empty page is asked for
        again. If it stays empty, an empty slice that is not certain comes.
        Something must be where the page before ended, or at ``start`` if
        it ``is_expected``.

        Raises:
            PubNubError: A page failed. Continue from the last slice's
                ``next``.
        """
        standstills = 0
        while end is None or is_after(start, end):
            reply = await self._read(channel, start, end, is_expected=is_expected)
            if reply.edge is None:
                if is_expected or not reply.is_end:
                    yield reply.last_slice()
                return
            slice = reply.slice()
            standstills = 0 if slice.is_certain else standstills + 1
            if standstills == TRIES:
                raise PubNubError(
                    f"PubNub's list of actions repeats itself below {start} instead of going back."
                )
            yield slice
            start = slice.next
            is_expected = slice.leads_on

    async def _read(
        self,
        channel: str,
        start: Timetoken,
        end: Timetoken | None,
        *,
        is_expected: bool,
    ) -> _Reply:
        """Return a page. An implausible one is asked for again."""
        asked: Counter[int] = Counter()
        while True:
            reply = await self._ask(channel, start, end, asked.total() + 1)
            tries = reply.tries(is_expected=is_expected)
            asked[tries] += 1
            if asked[tries] == tries:
                return reply

    async def _ask(
        self,
        channel: str,
        start: Timetoken,
        end: Timetoken | None,
        requests: int,
    ) -> _Reply:
        await self._take()
        asked_at = self._clock()
        page = await self._client.message_actions(channel, start=start, end=end, limit=PAGE_SIZE)
        return _Reply(
            page=page,
            span=span(page.actions),
            start=start,
            asked_at=asked_at,
            requests=requests,
        )


async def ahead(slices: AsyncGenerator[ListSlice, None]) -> AsyncGenerator[ListSlice, None]:
    """Yield the same slices, and ask for the next one in the meantime.

    A failure is raised after the slices before it. Closing this generator
    closes ``slices``, too.
    """
    async with aclosing(slices):
        request = asyncio.ensure_future(anext(slices, None))
        try:
            while slice := await request:
                request = asyncio.ensure_future(anext(slices, None))
                await asyncio.sleep(0)  # send the request before the caller gets busy
                yield slice
        finally:
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)


def span(actions: Iterable[object]) -> Span | None:
    """Return the oldest and the newest action timetoken of these items.

    Returns None if no timetoken is readable.
    """
    timetokens = list(filter(None, map(action_timetoken, actions)))
    if not timetokens:
        return None
    # Texts of one length, as all of PubNub's are, need no slower key.
    has_one_length = len(set(map(len, timetokens))) == 1
    key = None if has_one_length else order
    return min(timetokens, key=key), max(timetokens, key=key)
