"""Two passes over PubNub's list of a channel.

The first pass reads everything in a range.
The second pass reads around the actions that are in doubt.
"""

from collections.abc import Awaitable, Callable
from contextlib import aclosing

import structlog

from worker.applying.retry import ProgressWatcher, Retry, RetryPolicy
from worker.domain.position import Range, Timetoken, is_after, shift
from worker.domain.reconciliation import Coverage
from worker.errors import PubNubError, RolledBackError, StaleError
from worker.reconciliation.list_reader import ListReader
from worker.reconciliation.second_pass import SecondPass
from worker.source.history import History, ListSlice, ahead
from worker.store.progress import Progress

log = structlog.get_logger(__name__)

TakeSlice = Callable[[ListSlice], Awaitable[None]]


class Scanner:
    """Reads lists, and says what they prove."""

    def __init__(
        self,
        history: History,
        now: Callable[[], Awaitable[Timetoken]],
        policy: RetryPolicy,
        watch: ProgressWatcher | None = None,
    ) -> None:
        self.reader = ListReader(history, now, policy)
        self._history = history
        self._policy = policy
        self._watch = watch

    async def first_pass(
        self,
        channel: str,
        wanted: Range,
        coverage: Coverage,
        take: TakeSlice,
        *,
        is_expected: bool,
    ) -> None:
        """Read the list from end to begin, newest first.

        Give each slice to ``take``. If ``take`` raises ``StaleError``,
        the slice is read again.

        Raises:
            PubNubError: a request failed too often, or was refused.
                Below the last slice nothing was seen.
            RolledBackError: from ``take``.
        """
        with Retry(channel, self._policy) as retry:
            start = newest = wanted.until or await self.reader.start(channel)
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
                            reached = Progress(newest, start, wanted.since, coverage.listed)
                            self._report(channel, reached)
                except RolledBackError:
                    raise
                except StaleError as error:
                    log.warning("page_dropped", channel=channel, reason=str(error))
                except PubNubError as error:
                    await retry.after(error)
                else:
                    coverage.requests += 1  # the empty page at the end
                    return

    def _report(self, channel: str, progress: Progress) -> None:
        if self._watch:
            self._watch.reach(channel, progress)

    def second_pass(
        self,
        channel: str,
        coverage: Coverage,
        until: Timetoken | None,
    ) -> SecondPass:
        """Return a second pass, which reads the same pages as the first pass, or more."""
        return SecondPass(self.reader, self._policy, channel, coverage, until)


def _note(coverage: Coverage, slice: ListSlice, start: Timetoken) -> None:
    """Note how far a slice came.

    A list that stays empty, asked for again and again, is seen as empty.
    """
    if slice.span:
        oldest, newest = slice.span
        coverage.edges += [oldest] if coverage.edges else [newest, oldest]
    has_items = bool(coverage.listed or slice.actions)
    if has_items and not slice.is_certain:
        coverage.unseen.append(_unseen_stretch(slice, start))
    coverage.listed += len(slice.actions)
    coverage.requests += slice.requests


def _unseen_stretch(slice: ListSlice, start: Timetoken) -> Range:
    """Return the stretch that an uncertain slice may not have shown."""
    until = shift(start, 1)
    if is_after(start, slice.next):
        return Range(shift(slice.next, -1), until)
    return Range(None, until)
