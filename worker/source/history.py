"""A channel's list of actions, page by page, newest first."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import KW_ONLY, dataclass, replace
from typing import Final

from worker.domain.position import Timetoken, is_after, order, shift
from worker.errors import PubNubError
from worker.source.client import Client, Page
from worker.source.wire import action_timetoken

PAGE_SIZE: Final = 100
TRIES: Final = 3
"""How often a page that does not advance is read."""
EMPTY_RETRIES: Final = 5
"""How often an empty page is read where something must be."""

Span = tuple[Timetoken, Timetoken]
"""The oldest and the newest action timetoken of some items."""


@dataclass(frozen=True, slots=True)
class ListSlice:
    """The raw actions of one page.

    They lie between ``next`` (inclusive), the start of the next request,
    and the end of the slice before. ``span`` is None if no action has a
    readable timetoken. ``asked_at`` and ``received_at`` are in seconds of the
    clock: the list was as the page shows it at some moment between them.
    """

    actions: tuple[object, ...]
    span: Span | None
    next: Timetoken
    asked_at: float
    received_at: float
    _: KW_ONLY
    is_certain: bool = True
    """Whether the page shows everything in its range."""
    leads_on: bool = True
    """Whether the next page must repeat the oldest action of this one."""
    requests: int = 1
    repeated: int = 0
    """Actions that the next page shows again."""


class _Reply:
    """One page below ``start``, and what it says about the next one."""

    def __init__(
        self,
        page: Page,
        start: Timetoken,
        requests: int,
        asked_at: float,
        received_at: float,
    ) -> None:
        self._page = page
        self._start = start
        self._asked_at = asked_at
        self._received_at = received_at
        self._requests = requests
        self._span = span(page.actions)
        oldest = self._span[0] if self._span else None
        self.edge = page.more_start or oldest
        """The older end of the page; None if the page does not show it."""
        # Two actions can share one timetoken, so pages overlap at the edge.
        self._below = shift(self.edge or start, 1)
        self._advances = is_after(start, self._below)
        self.is_end = not page.actions and self.edge is None

    @property
    def _is_certain(self) -> bool:
        # A page that only repeats the oldest timetoken of the page before is the
        # end of the list, unless more actions have it than fit into a page.
        if self._advances:
            return True
        if self._page.more_start is not None or len(self._page.actions) >= PAGE_SIZE:
            return False
        newest = shift(self._start, -1)
        return set(map(action_timetoken, self._page.actions)) <= {newest}

    def tries(self, *, is_expected: bool) -> int:
        """Return how often such a page comes before it is believed."""
        if self.is_end:
            return EMPTY_RETRIES if is_expected else 1
        if self.edge is None or self._is_certain:
            return 1
        return TRIES

    def _repeated(self) -> int:
        """Return how many actions the next page repeats.

        These are those at the edge.
        """
        if not self._advances:
            return 0
        timetokens = map(action_timetoken, self._page.actions)
        return list(timetokens).count(self.edge)

    def slice(self) -> ListSlice:
        return ListSlice(
            self._page.actions,
            self._span,
            self._below if self._advances else shift(self._start, -1),
            self._asked_at,
            self._received_at,
            is_certain=self._is_certain,
            leads_on=self._advances,
            requests=self._requests,
            repeated=self._repeated(),
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

        ``end`` None stands for the very first action. Pages overlap by one
        timetoken, so an action can come twice.

        A short page proves nothing. Only an empty page without ``more``
        is the end. Something must be where the page before ended, or at
        ``start`` if it ``is_expected``: there, an empty page is asked for
        again. If it stays empty, an empty slice that is not certain comes.

        Raises:
            PubNubError: A page failed. Continue from the last ``next``.
        """
        standstills = 0
        while end is None or is_after(start, end):
            reply = await self._read(channel, start, end, is_expected=is_expected)
            slice = reply.slice()
            if reply.edge is None:
                if is_expected or not reply.is_end:
                    yield replace(slice, next=start, is_certain=False)
                return
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
        requests = empty = standing_still = 0
        while True:
            await self._take()
            asked_at = self._clock()
            page = await self._client.message_actions(channel, start=start, end=end)
            requests += 1
            reply = _Reply(page, start, requests, asked_at, self._clock())
            # Empty pages count in a row:
            # another page shows that there is something.
            empty = empty + 1 if reply.is_end else 0
            standing_still += not reply.is_end
            tries = reply.tries(is_expected=is_expected)
            if (empty if reply.is_end else standing_still) >= tries:
                return reply


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
    """Return the oldest and the newest readable action timetoken."""
    timetokens = list(filter(None, map(action_timetoken, actions)))
    if not timetokens:
        return None
    return min(timetokens, key=order), max(timetokens, key=order)
