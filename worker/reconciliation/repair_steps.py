"""The steps of a channel's repair. Between them it holds nothing.

1. At once: the additions of the gap's own stretch, if it is known.
2. A settle time after the newest gap: a look at the whole list.
3. Another settle time later: a second look at what is in doubt.
"""

import asyncio
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from worker.applying.slots import Slots, Urgency
from worker.domain.position import Range, order
from worker.reconciliation.marks import present_marks, ripe_at
from worker.reconciliation.reconcile import Reconciler
from worker.reconciliation.report import ReconcileOptions, ReconcileReport
from worker.store.pending_repairs import GapCause
from worker.store.tables import Tables

RETRY_SECONDS: Final = 60.0
"""Seconds until a repair that failed, or left doubts, is repeated.

They double from one time to the next, up to one of these:
"""
LONGEST_FAILED_SECONDS: Final = 600.0
LONGEST_IN_DOUBT_SECONDS: Final = 3600.0
LONGEST_REFUSED_SECONDS: Final = 86400.0
"""A refusal waits for a person."""
LONGEST_DOUBLING: Final = 16
"""How often the seconds double; more would overflow."""
LONGEST_SETTLES: Final = 10
"""Settle times that a channel may wait for an end of its gaps."""
PACE: Final = 4
"""After a look that took a minute of the budget, the next one
is four minutes later at least."""
LASTING: Final = frozenset(
    {
        GapCause.UNPROVEN.value,
        GapCause.QUARANTINED.value,
    }
)
"""Causes that another look may well not repair."""


class Replay(Protocol):
    """The first step: ``Backfiller`` in ``history/backfill.py``."""

    async def request(self, channels: Collection[str], wanted: Range) -> None:
        """Save that a range is wanted."""

    async def replay(self, channel: str, wanted: Range | None) -> int:
        """Replay what is wanted, and what was saved."""


@dataclass(slots=True, kw_only=True)
class RepairState:
    """How far the repair of one channel is."""

    urgency: Urgency
    stretch: Range | None = None
    """Additions of this range may be missing."""
    noted_at: float = math.inf
    """When the oldest gap was noted that no look repairs."""
    heard_at: float = -math.inf
    """When the newest gap was noted."""
    not_before: float = 0.0
    """When the next look may begin."""
    tries: int = 0
    """How many looks in a row have failed, or left doubts."""
    is_failing: bool = False
    has_news: bool = False
    """Whether a gap was noted while a step was under way."""

    def add(self, stretch: Range) -> None:
        """Add a newer range, and what lies between the two."""
        old = self.stretch or stretch
        since = None
        if old.since and stretch.since:
            since = min(old.since, stretch.since, key=order)
        self.stretch = Range(since, stretch.until)

    def later_each_time(self, first: float, longest: float) -> float:
        """Return the seconds until the next try."""
        doublings = min(self.tries, LONGEST_DOUBLING)
        self.tries += 1
        seconds: float = min(longest, first * 2**doublings)
        return seconds


class RepairSteps:
    """Makes the step of a repair that is due."""

    def __init__(
        self,
        reconciler: Reconciler,
        backfiller: Replay,
        tables: Tables,
        slots: Slots,
        settle_seconds: float,
        rate: Callable[[], float],
    ) -> None:
        """``rate`` returns how many requests a second the budget has."""
        self.backfiller = backfiller
        self.clock = reconciler.clock
        self.settle_seconds = settle_seconds
        self.first_retry = min(RETRY_SECONDS, settle_seconds)
        self._reconciler = reconciler
        self._tables = tables
        self._slots = slots
        self._rate = rate

    async def run(self, channel: str, state: RepairState) -> float | None:
        """Go on with a repair.

        Returns the seconds until its next step; None at its end.

        Raises:
            TallyError: the repair failed.
        """
        if await self._tables.channels.is_forgotten(channel):
            state.stretch = None
            return None
        async with self._slots.held(state.urgency):
            await self._backfill(channel, state)
            seconds = await self._seconds_until_ripe(channel, state)
        if seconds is None or seconds > 0:
            return seconds
        report = await self._look(channel, state)
        return await self._seconds_until_next(channel, state, report)

    async def _backfill(self, channel: str, state: RepairState) -> None:
        """Replay the gap's own stretch, and what was interrupted."""
        stretch = state.stretch
        await self.backfiller.replay(channel, stretch)
        if state.stretch == stretch:
            state.stretch = None

    async def _look(
        self,
        channel: str,
        state: RepairState,
    ) -> ReconcileReport:
        """Look at the whole list."""
        state.noted_at = math.inf
        began = _now()
        options = ReconcileOptions(urgency=state.urgency)
        report = await self._reconciler.channel(channel, Range(), options)
        # A busy room with a long past must not take every request.
        seconds = _now() - began - 2 * self.settle_seconds
        taken = max(seconds, report.requests / self._rate())
        state.not_before = _now() + PACE * taken
        return report

    async def _seconds_until_ripe(
        self,
        channel: str,
        state: RepairState,
    ) -> float | None:
        """Return the seconds until a look would repair all marks.

        None if the channel has no marks.
        0 if gaps have kept coming for too long:
        then a look repairs the older ones, and leaves the newest marks.
        """
        marks = await present_marks(self._tables, channel)
        if not marks:
            state.noted_at = math.inf
            return None
        now = _now()
        state.noted_at = min(state.noted_at, now)
        pause = max(0.0, state.not_before - now)
        if now - state.noted_at >= LONGEST_SETTLES * self.settle_seconds:
            return pause
        ripe = _all_ripe_at(marks, self.settle_seconds)
        milliseconds = ripe - await self._tables.server.now()
        # Redis's clock may have been set forward since.
        settled = state.heard_at + self.settle_seconds - now
        return max(pause, settled, milliseconds / 1000)

    async def _seconds_until_next(
        self,
        channel: str,
        state: RepairState,
        report: ReconcileReport,
    ) -> float | None:
        """Return the seconds until another look, if marks are left.

        It begins soon for a new gap,
        and later for what this one could not repair.
        """
        marks = await self._tables.pending.read(channel)
        first = self.settle_seconds
        if not marks:
            state.tries = 0
            return None
        if report.refused:
            return state.later_each_time(first, LONGEST_REFUSED_SECONDS)
        if report.unproven or marks.keys() <= LASTING:
            return state.later_each_time(first, LONGEST_IN_DOUBT_SECONDS)
        state.tries = 0
        return self.settle_seconds


def _now() -> float:
    return asyncio.get_running_loop().time()


def _all_ripe_at(marks: Mapping[str, int], settle_seconds: float) -> float:
    """Return when all of the marks are old enough."""
    return max(ripe_at(cause, marked_at, settle_seconds) for cause, marked_at in marks.items())
