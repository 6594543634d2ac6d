"""Reads PubNub's list of a channel, from any start downwards."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Final

from worker.applying.retry import Retry, RetryPolicy, retry
from worker.domain.action import Added
from worker.domain.position import TICKS_PER_SECOND, Timetoken, shift
from worker.domain.reconciliation import Coverage
from worker.errors import PubNubError
from worker.source.history import History, ListSlice
from worker.source.wire import CountedTypes, decode_action

BEYOND_TICKS: Final = 86_400 * TICKS_PER_SECOND
"""A list begins a day ahead: our idea of PubNub's clock may be behind."""


class ListReader:
    """Reads lists, and PubNub's clock; repeats requests as its policy says."""

    def __init__(
        self,
        history: History,
        now: Callable[[], Awaitable[Timetoken]],
        policy: RetryPolicy,
    ) -> None:
        self._history = history
        self._now = now
        self._policy = policy

    async def now(self, channel: str) -> Timetoken:
        """Return PubNub's clock, or a little less: see ``SteadyClock``.

        Raises:
            PubNubError: the request failed too often.
        """
        return await retry(self._now, channel, self._policy)

    async def start(self, channel: str) -> Timetoken:
        """Return a timetoken above everything that is listed: where to begin a list.

        Raises:
            PubNubError: the request failed too often.
        """
        return shift(await self.now(channel), BEYOND_TICKS)

    async def is_listed(self, channel: str) -> bool:
        """Tell whether PubNub lists anything of a channel; one request.

        Raises:
            PubNubError: the request failed too often, or was refused.
        """
        start = await self.start(channel)
        slices = self.slices(channel, start, Coverage(), is_expected=False)
        async with aclosing(slices):
            async for slice in slices:
                return bool(slice and slice.actions)
        return False

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
        with Retry(channel, self._policy) as retry:
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


def _is_empty(slice: ListSlice) -> bool:
    """Tell whether PubNub was asked again and again, and listed nothing."""
    return not slice.actions and not slice.is_certain


def additions(
    channel: str,
    slice: ListSlice,
    counted_types: CountedTypes,
) -> list[Added]:
    """Return the additions of a slice that are counted.

    Malformed items are left out.
    """
    decoded = [decode_action(channel, action, counted_types) for action in slice.actions]
    return [item for item in decoded if isinstance(item, Added)]
