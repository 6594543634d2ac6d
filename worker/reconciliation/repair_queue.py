"""Reconciles the channels that are owed a repair.

A reconcile begins a settle time after the newest gap.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import structlog

from worker.domain.position import Range
from worker.errors import PubNubError, RedisUnavailableError, StaleError
from worker.reconciliation.marks import ripe_at
from worker.reconciliation.reconcile import Reconciler, ReconcileReport
from worker.store.pending_repairs import GapCause
from worker.store.tables import Tables
from worker.telemetry.throttled_warning import ThrottledWarning

CONCURRENCY: Final = 8
"""Channels that are reconciled side by side."""
RETRY_SECONDS: Final = 60.0
"""Seconds until a reconcile that failed, or left doubts, is repeated.

They double from one time to the next, up to one of these:
"""
LONGEST_FAILED_SECONDS: Final = 600.0
LONGEST_IN_DOUBT_SECONDS: Final = 3600.0
LONGEST_REFUSED_SECONDS: Final = 86400.0
"""A refusal waits for a person, and each repetition reads the whole list."""
LONGEST_DOUBLING: Final = 16
"""How often the seconds double; more would overflow."""
LONGEST_SETTLES: Final = 10
"""Settle times that a channel may wait for an end of its gaps."""
LASTING: Final = frozenset(
    {
        GapCause.UNPROVEN.value,
        GapCause.QUARANTINED.value,
    }
)
"""Causes that another reconcile may well not repair."""

log = structlog.get_logger(__name__)


class RepairQueue:
    """A queue of channels to reconcile.

    Their marks are in Redis, so that a kill forgets none.
    """

    def __init__(
        self,
        reconciler: Reconciler,
        tables: Tables,
        settle_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._reconciler = reconciler
        self._tables = tables
        self._settle_seconds = settle_seconds
        self._waiting: asyncio.Queue[str] = asyncio.Queue()
        self._queued: set[str] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._tries: dict[str, int] = {}
        self._noted: dict[str, float] = {}
        self._warning = ThrottledWarning(
            log,
            "reconcile_failed",
            "reconcile_works_again",
            clock,
        )

    def note(self, channels: Iterable[str]) -> None:
        """Reconcile channels that have new marks, which are durable already."""
        now = asyncio.get_running_loop().time()
        for channel in channels:
            self._tries.pop(channel, None)
            self._noted.setdefault(channel, now)
            if not self._is_soon(channel, now):
                self._schedule(channel, self._settle_seconds)

    def nudge(self, channels: Iterable[str]) -> None:
        """Reconcile channels that have marks, unless they wait for their turn."""
        for channel in channels:
            if not self._is_waiting(channel):
                self._schedule(channel, self._settle_seconds)

    async def run(self) -> None:
        """Reconcile channels that have marks or are noted, until cancelled."""
        channels = await self._tables.channels.all()
        marked = await self._tables.pending.read_all(channels)
        for channel in marked:
            self._enqueue(channel)
        async with asyncio.TaskGroup() as group:
            for _ in range(CONCURRENCY):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            channel = await self._waiting.get()
            self._queued.discard(channel)
            seconds = await self._seconds_until_ripe(channel)
            if seconds is None:
                self._forget(channel)
            elif seconds > 0:
                self._schedule(channel, seconds)
            else:
                await self._reconcile(channel)

    def _forget(self, channel: str) -> None:
        """Forget a channel that another process has repaired."""
        self._noted.pop(channel, None)
        self._warning.recovered(channel)

    async def _reconcile(self, channel: str) -> None:
        self._noted.pop(channel, None)
        try:
            report = await self._reconciler.channel(channel, Range())
        except (PubNubError, RedisUnavailableError, StaleError) as error:
            self._warning.failing(channel, channel=channel, reason=str(error))
            self._schedule_retry(channel, LONGEST_FAILED_SECONDS)
        else:
            self._warning.recovered(channel)
            await self._plan_next(channel, report)

    async def _seconds_until_ripe(self, channel: str) -> float | None:
        """Return the seconds until a reconcile would repair all marks.

        None if the channel has no marks.
        0 if gaps have kept coming for too long:
        then a reconcile repairs the older ones, and leaves the newest marks.
        """
        marks = await self._tables.pending.read(channel)
        if not marks:
            return None
        now = asyncio.get_running_loop().time()
        waited = now - self._noted.setdefault(channel, now)
        if waited >= LONGEST_SETTLES * self._settle_seconds:
            return 0.0
        ripe = _all_ripe_at(marks, self._settle_seconds)
        milliseconds = ripe - await self._tables.server.now()
        return max(0.0, milliseconds) / 1000

    async def _plan_next(self, channel: str, report: ReconcileReport) -> None:
        """Plan another reconcile if marks are left.

        It begins soon for a new gap,
        and later for what this one could not repair.
        """
        marks = await self._tables.pending.read(channel)
        if not marks:
            self._tries.pop(channel, None)
            return
        if self._is_waiting(channel):
            return  # a gap was noted meanwhile
        if report.refused:
            self._schedule_retry(channel, LONGEST_REFUSED_SECONDS)
        elif report.unproven or marks.keys() <= LASTING:
            self._schedule_retry(channel, LONGEST_IN_DOUBT_SECONDS)
        else:
            self._schedule(channel, self._settle_seconds)

    def _is_waiting(self, channel: str) -> bool:
        """Tell whether a channel waits for its time, or for its turn."""
        return channel in self._timers or channel in self._queued

    def _is_soon(self, channel: str, now: float) -> bool:
        """Tell whether a channel's turn comes within a settle time."""
        if channel in self._queued:
            return True
        timer = self._timers.get(channel)
        if timer is None:
            return False
        return timer.when() <= now + self._settle_seconds

    def _schedule_retry(self, channel: str, longest: float) -> None:
        """Reconcile a channel later, and later each time."""
        tries = self._tries.get(channel, 0)
        self._tries[channel] = tries + 1
        first = min(RETRY_SECONDS, self._settle_seconds)
        doublings = min(tries, LONGEST_DOUBLING)
        seconds: float = min(longest, first * 2**doublings)
        self._schedule(channel, max(self._settle_seconds, seconds))

    def _schedule(self, channel: str, seconds: float) -> None:
        """Reconcile a channel in so many seconds.

        A time that was set before is forgotten.
        """
        self._cancel_timer(channel)
        loop = asyncio.get_running_loop()
        timer = loop.call_later(seconds, self._enqueue, channel)
        self._timers[channel] = timer

    def _enqueue(self, channel: str) -> None:
        self._cancel_timer(channel)
        if channel not in self._queued:
            self._queued.add(channel)
            self._waiting.put_nowait(channel)

    def _cancel_timer(self, channel: str) -> None:
        timer = self._timers.pop(channel, None)
        if timer:
            timer.cancel()


def _all_ripe_at(marks: Mapping[str, int], settle_seconds: float) -> float:
    """Return when all of the marks are old enough."""
    return max(ripe_at(cause, marked_at, settle_seconds) for cause, marked_at in marks.items())
