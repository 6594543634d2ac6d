"""Two looks at PubNub's list of a channel: one over everything in a range, and a second at what is in doubt."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import aclosing
from itertools import groupby
from typing import Final

import structlog

from worker.applying.apply import RolledBackError, StaleError
from worker.applying.retry import ProgressWatcher, Retry, RetryPolicy, retry
from worker.domain.action import Added
from worker.domain.position import TICKS_PER_SECOND, Range, Timetoken, is_after, order, shift
from worker.domain.reconciliation import Candidate, Coverage, Proof, Verdict, judge
from worker.errors import PubNubError
from worker.source.history import History, ListSlice, ahead
from worker.source.wire import decode_action
from worker.store.progress import Progress

EDGES_UP: Final = (1, 4, 16)
"""How many edges of the first look above a candidate the second look begins, one try after the other."""
LONGEST_STEPS: Final = 12
"""How often a start above the range is moved further up, eight times as far each time, before the present is taken."""

log = structlog.get_logger(__name__)

Take = Callable[[ListSlice], Awaitable[None]]


class Scanner:
    """Reads lists, and says what they prove."""

    def __init__(
        self,
        history: History,
        now: Callable[[], Awaitable[Timetoken]],
        policy: RetryPolicy,
        watch: ProgressWatcher | None = None,
    ) -> None:
        self._history = history
        self._now = now
        self._policy = policy
        self._watch = watch

    async def now(self, channel: str) -> Timetoken:
        """Return PubNub's clock.

        Raises:
            PubNubError: it failed too often.
        """
        return await retry(self._now, channel, self._policy)

    async def is_listed(self, channel: str) -> bool:
        """Tell whether PubNub lists anything of a channel; asked once.

        Raises:
            PubNubError: it failed too often, or refused.
        """
        now = await self.now(channel)
        async with aclosing(self._slices(channel, now, Coverage(), is_expected=False)) as slices:
            async for slice in slices:
                return bool(slice and slice.actions)
        return False

    async def first_pass(
        self, channel: str, wanted: Range, coverage: Coverage, take: Take, *, is_expected: bool
    ) -> None:
        """Read the list from end to begin, newest first; give every slice to ``take``, which may ask for it again.

        Raises:
            PubNubError: it failed too often, or refused; below the last slice nothing was seen.
            ForgottenError: from ``take``.
        """
        with Retry(channel, self._policy) as retry:
            start = newest = wanted.until or await self.now(channel)
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
                            start, is_expected = slice.next, slice.leads_on
                            if self._watch:
                                self._watch.reach(
                                    channel, Progress(newest, start, wanted.since, coverage.listed)
                                )
                except RolledBackError:
                    raise
                except StaleError as error:
                    log.warning("page_dropped", channel=channel, reason=str(error))
                except PubNubError as error:
                    await retry.after(error)
                else:
                    coverage.requests += 1  # the empty page at the end
                    return

    async def second_pass(
        self,
        channel: str,
        wanted: Collection[Candidate],
        coverage: Coverage,
        until: Timetoken | None,
    ) -> dict[Candidate, Proof]:
        """Look again at each candidate, through the same pages of the list as the first time, or more.

        Raises:
            PubNubError: it failed too often, or refused.
        """
        proofs = dict.fromkeys(wanted, Proof(Verdict.UNPROVEN, self._policy.clock()))
        newest_first = sorted(
            wanted, key=lambda candidate: order(candidate.action_timetoken), reverse=True
        )
        for _, near in groupby(
            newest_first, key=lambda candidate: coverage.above(candidate.action_timetoken, 1)
        ):
            left = list(near)
            for start, is_top in await self._starts(
                channel, left[0].action_timetoken, coverage, until
            ):
                found = await self._walk(channel, left, start, coverage, is_top=is_top)
                proofs |= found
                left = [candidate for candidate in left if candidate not in found]
                if not left:
                    break
        return proofs

    async def _starts(
        self, channel: str, at: Timetoken, coverage: Coverage, until: Timetoken | None
    ) -> list[tuple[Timetoken, bool]]:
        """Return where to begin, one after the other; True beside the last one, the present: above it is nothing."""
        now = shift(await self.now(channel), round(self._policy.settle_seconds * TICKS_PER_SECOND))
        known = [shift(edge, 1) for steps in EDGES_UP if (edge := coverage.above(at, steps))]
        beyond = [] if until is None else list(_further(until, now, self._policy.settle_seconds))
        return [(start, False) for start in known + beyond] + [(now, True)]

    async def _walk(
        self,
        channel: str,
        wanted: Sequence[Candidate],
        start: Timetoken,
        coverage: Coverage,
        *,
        is_top: bool,
    ) -> dict[Candidate, Proof]:
        """Read on from ``start`` until all of the candidates are passed; return those of which something is proven."""
        found: dict[Candidate, Proof] = {}
        seen: list[Timetoken] = []
        is_whole = False
        # There is somebody to look for, so an empty answer is not believed at once.
        async with aclosing(self._slices(channel, start, coverage, is_expected=True)) as slices:
            async for slice in slices:
                if slice is None:
                    is_whole = True
                    break
                verdicts = judge(
                    self._listed(channel, slice),
                    slice.span or (),
                    [c for c in wanted if c not in found],
                )
                found |= {
                    candidate: Proof(verdict, slice.asked_at)
                    for candidate, verdict in verdicts.items()
                }
                seen += reversed(slice.span or ())
                left = [candidate for candidate in wanted if candidate not in found]
                if not left or not slice.is_certain:
                    break
                if slice.span and is_after(left[-1].action_timetoken, seen[-1]):
                    break  # passed, and not between two of one answer: begin further up
        for candidate in wanted:
            if candidate not in found and _nothing_brackets(
                candidate, seen, coverage, is_top=is_top, is_whole=is_whole
            ):
                found[candidate] = Proof(Verdict.ABSENT, self._policy.clock())
        return found

    async def _slices(
        self, channel: str, start: Timetoken, coverage: Coverage, *, is_expected: bool
    ) -> AsyncGenerator[ListSlice | None, None]:
        """Yield slices, and None where the list has come to its end."""
        with Retry(channel, self._policy) as retry:
            is_first = True
            while True:
                slices = self._history.slices(channel, start, None, is_expected=is_expected)
                try:
                    async with aclosing(slices):
                        async for slice in slices:
                            retry.succeeded()
                            coverage.requests += slice.requests
                            if is_first and not slice.actions and not slice.is_certain:
                                break  # asked for again and again: there is nothing
                            start, is_first, is_expected = slice.next, False, slice.leads_on
                            yield slice
                except PubNubError as error:
                    await retry.after(error)
                else:
                    coverage.requests += 1
                    yield None
                    return

    def _listed(self, channel: str, slice: ListSlice) -> set[Candidate]:
        return {
            Candidate(added.identity, added.action_timetoken)
            for added in additions(channel, slice, self._policy)
        }


def additions(channel: str, slice: ListSlice, policy: RetryPolicy) -> list[Added]:
    """Return the additions of a slice that are to be counted; what cannot be understood is left out."""
    decoded = (decode_action(channel, action, policy.counted_types) for action in slice.actions)
    return [item for item in decoded if isinstance(item, Added)]


def _note(coverage: Coverage, slice: ListSlice, start: Timetoken) -> None:
    """Write down how far a slice came; a list that shows nothing at all, asked again and again, is seen as empty."""
    if slice.span:
        oldest, newest = slice.span
        coverage.edges += [oldest] if coverage.edges else [newest, oldest]
    if not slice.is_certain and coverage.listed + len(slice.actions):
        has_moved = is_after(start, slice.next)
        coverage.unseen.append(Range(shift(slice.next, -1) if has_moved else None, shift(start, 1)))
    coverage.listed += len(slice.actions)
    coverage.requests += slice.requests


def _further(until: Timetoken, now: Timetoken, settle_seconds: float) -> Iterator[Timetoken]:
    """Yield starts above ``until``, further and further up, short of now."""
    step = round(max(1.0, settle_seconds) * TICKS_PER_SECOND)
    for power in range(LONGEST_STEPS):
        start = shift(until, step * 8**power)
        if not is_after(now, start):
            return
        yield start


def _nothing_brackets(
    candidate: Candidate,
    seen: Sequence[Timetoken],
    coverage: Coverage,
    *,
    is_top: bool,
    is_whole: bool,
) -> bool:
    """Tell whether the list has nothing left to bracket a candidate with, on one side at least; both looks then decide.

    An empty answer is a witness of nothing, unless the first look saw nothing either.
    """
    if not seen:
        return is_top and is_whole and not coverage.listed
    at = candidate.action_timetoken
    # Nor has it where a candidate shares the timetoken of the first or the last of all: pages overlap by one timetoken,
    # so whatever else has that one was shown.
    is_above = is_top and not is_after(max(seen, key=order), at)
    is_below = is_whole and not is_after(at, min(seen, key=order))
    return is_above or is_below
