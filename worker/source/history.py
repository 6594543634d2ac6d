"""A channel's actions, page by page, newest first."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from worker.domain.position import Timetoken, is_after, order, shift
from worker.errors import PubNubError
from worker.source.client import Client, Page
from worker.source.wire import action_timetoken

PAGE_SIZE: Final = 100
TRIES: Final = 3
"""How often a page that does not advance is asked for before it is stepped over."""
EMPTY_RETRIES: Final = 5
"""How often a page that must hold something is asked for, while it comes back empty."""


Span = tuple[Timetoken, Timetoken]
"""The oldest and the newest action timetoken of some items."""


@dataclass(frozen=True, slots=True)
class ListSlice:
    """What one page told: raw actions between ``next`` (inclusive) and where the page before it ended.

    ``span`` is None where not one of them says when it was.

    ``next`` is the ``start`` of the next request, ``asked_at`` when this one was made, in seconds of the clock.
    ``is_certain`` is False where a page would not advance and its edge was stepped over, or came back empty
    although something was expected: something may be missing.
    """

    actions: tuple[object, ...]
    span: Span | None
    next: Timetoken
    asked_at: float
    is_certain: bool = True
    leads_on: bool = True
    """Whether the page below must show something: what this one ended with."""
    requests: int = 1


class History:
    """Reads a channel's list of actions."""

    def __init__(
        self, client: Client, take: Callable[[], Awaitable[None]], clock: Callable[[], float]
    ) -> None:
        """``take`` returns when one more request fits the budget."""
        self._client = client
        self._take = take
        self._clock = clock

    async def slices(
        self, channel: str, start: Timetoken, end: Timetoken | None, *, is_expected: bool = False
    ) -> AsyncGenerator[ListSlice, None]:
        """Yield slices from ``start`` (exclusive) back to ``end`` (inclusive; None: to the very first).

        Pages overlap by one timetoken, because two actions can share one and ``start`` is exclusive; the same action
        may so come twice. A page shorter than asked proves nothing: only an empty one without ``more`` is the end, and
        even that is asked for again where something must be there: what the page before ended with or, if it
        ``is_expected``, anything at all. If it stays empty, an empty slice says so that is not certain.

        Raises:
            PubNubError: and its kinds, for the page that failed; go on from the ``next`` of the last slice.
        """
        tries = steps = requests = blanks = 0
        while end is None or is_after(start, end):
            await self._take()
            asked_at = self._clock()
            page = await self._client.message_actions(
                channel, start=start, end=end, limit=PAGE_SIZE
            )
            requests += 1
            if not page.actions and page.more_start is None:
                blanks += 1
                if is_expected and blanks < EMPTY_RETRIES:
                    continue
                if is_expected:
                    yield ListSlice((), None, start, asked_at, is_certain=False, requests=requests)
                return
            blanks = 0
            told = span(page.actions)
            edge = page.more_start or (told and told[0])  # down to where everything was told
            if edge is None:
                # Not one item says when it was: they are told, but nobody can say what lies below them.
                yield ListSlice(
                    page.actions, told, start, asked_at, is_certain=False, requests=requests
                )
                return
            advances = is_after(start, shift(edge, 1))
            is_rest = not advances and _is_rest(page, start)
            tries = 0 if advances or is_rest else tries + 1
            if 0 < tries < TRIES:
                continue
            steps = steps + 1 if tries else 0
            if steps == TRIES:
                raise PubNubError(
                    f"PubNub's list of actions repeats itself below {start} instead of going back."
                )
            start = shift(edge, 1) if advances else shift(start, -1)
            is_expected = advances  # the next page begins with what this one ends with
            is_certain = not tries
            yield ListSlice(
                page.actions,
                told,
                start,
                asked_at,
                is_certain,
                leads_on=advances,
                requests=requests,
            )
            tries = requests = 0


async def ahead(slices: AsyncGenerator[ListSlice, None]) -> AsyncGenerator[ListSlice, None]:
    """Yield the same slices; while one is dealt with, the next one is asked for already. Closing this closes them.

    A failure is raised in its turn, when all slices before it are dealt with.
    """
    async with aclosing(slices):
        coming = asyncio.ensure_future(anext(slices, None))
        try:
            while slice := await coming:
                coming = asyncio.ensure_future(anext(slices, None))
                await asyncio.sleep(0)  # let it begin: whoever deals with this one may take a while
                yield slice
        finally:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)


def span(actions: Iterable[object]) -> Span | None:
    """Return the oldest and the newest action timetoken of these items; None where none can be read."""
    timetokens = [at for action in actions if (at := action_timetoken(action))]
    if not timetokens:
        return None
    # Those of one length, as all of PubNub's are, are in order as the texts they are; the key takes longer.
    key = None if len(set(map(len, timetokens))) == 1 else order
    return min(timetokens, key=key), max(timetokens, key=key)


def _is_rest(page: Page, start: Timetoken) -> bool:
    """Tell whether a page holds just what it overlaps with: the few actions at the timetoken below ``start``."""
    edge = shift(start, -1)
    return (
        page.more_start is None
        and len(page.actions) < PAGE_SIZE
        and all(action_timetoken(action) == edge for action in page.actions)
    )
