"""Repayment of what channels owe: a reconcile of everything, begun a settle time after the newest gap."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

import structlog

from worker.applying.apply import StaleError
from worker.domain.position import Range
from worker.errors import PubNubError, RedisUnavailableError
from worker.reconciliation.reconcile import Reconciler, ReconcileReport, ripe_at
from worker.store.pending_repairs import GapCause
from worker.store.tables import Tables
from worker.telemetry.throttled_warning import ThrottledWarning

CONCURRENCY: Final = 8
RETRY_SECONDS: Final = 60.0
"""After how long a reconcile that failed, or left doubts, is tried again the first time; later twice as long."""
LONGEST_FAILED_SECONDS: Final = 600.0
LONGEST_IN_DOUBT_SECONDS: Final = 3600.0
LONGEST_REFUSED_SECONDS: Final = 86400.0
"""What waits for a person costs a reconcile of everything at each try."""
LONGEST_SETTLES: Final = 10
"""For how many settle times a channel waits to be quiet for one."""
LASTING: Final = frozenset({GapCause.UNPROVEN.value, GapCause.QUARANTINED.value})
"""Causes that another reconcile may well not mend."""

log = structlog.get_logger(__name__)


class RepairQueue:
    """A queue of channels to reconcile. That they owe is written in Redis, so a kill forgets none."""

    def __init__(
        self,
        reconcile: Reconciler,
        tables: Tables,
        settle_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._reconcile = reconcile
        self._tables = tables
        self._settle_seconds = settle_seconds
        self._waiting: asyncio.Queue[str] = asyncio.Queue()
        self._queued: set[str] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._tries: dict[str, int] = {}
        self._noted: dict[str, float] = {}
        self._warning = ThrottledWarning(log, "reconcile_failed", "reconcile_works_again", clock)

    def note(self, channels: Iterable[str]) -> None:
        """Hear that channels owe something new; it is durable already."""
        now = asyncio.get_running_loop().time()
        for channel in channels:
            self._tries.pop(channel, None)
            self._noted.setdefault(channel, now)
            timer = self._timers.get(channel)
            if channel not in self._queued and (
                timer is None or timer.when() > now + self._settle_seconds
            ):
                self._schedule(channel, self._settle_seconds)

    def nudge(self, channels: Iterable[str]) -> None:
        """Hear that channels owe something; those that wait for their turn go on waiting."""
        for channel in channels:
            if channel not in self._timers and channel not in self._queued:
                self._schedule(channel, self._settle_seconds)

    async def run(self) -> None:
        """Repay what is owed already, then what is noted, until cancelled."""
        channels = await self._tables.channels.all()
        for channel in await self._tables.pending.read_all(channels):
            self._enqueue(channel)
        async with asyncio.TaskGroup() as group:
            for _ in range(CONCURRENCY):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            channel = await self._waiting.get()
            self._queued.discard(channel)
            if (wait := await self._wait(channel)) is None:  # somebody else has repaid it
                self._noted.pop(channel, None)
                self._warning.recovered(channel)
                continue
            if wait > 0:
                self._schedule(channel, wait)
                continue
            self._noted.pop(channel, None)
            try:
                report = await self._reconcile.channel(channel, Range())
            except (PubNubError, RedisUnavailableError, StaleError) as error:
                self._warning.failing(channel, channel=channel, reason=str(error))
                self._schedule(channel, self._patience(channel, LONGEST_FAILED_SECONDS))
            else:
                self._warning.recovered(channel)
                await self._go_on(channel, report)

    async def _wait(self, channel: str) -> float | None:
        """Return the seconds until a reconcile would repay all marks; None if there are none.

        Where gaps keep coming there is no such time: then one begins for what is older, and leaves the newest marks.
        """
        owed = await self._tables.pending.read(channel)
        if not owed:
            return None
        loop = asyncio.get_running_loop()
        if (
            loop.time() - self._noted.setdefault(channel, loop.time())
            >= LONGEST_SETTLES * self._settle_seconds
        ):
            return 0.0
        now = await self._tables.server.now()
        return (
            max(0.0, max(ripe_at(*mark, self._settle_seconds) for mark in owed.items()) - now)
            / 1000
        )

    async def _go_on(self, channel: str, report: ReconcileReport) -> None:
        """Come back for marks that are left: soon for a new gap, later for what a reconcile could not mend."""
        owed = await self._tables.pending.read(channel)
        if not owed:
            self._tries.pop(channel, None)
        elif channel in self._timers or channel in self._queued:
            pass  # a gap was noted meanwhile
        elif report.unproven or report.refused or owed.keys() <= LASTING:
            longest = LONGEST_REFUSED_SECONDS if report.refused else LONGEST_IN_DOUBT_SECONDS
            self._schedule(channel, self._patience(channel, longest))
        else:
            self._schedule(channel, self._settle_seconds)

    def _patience(self, channel: str, longest: float) -> float:
        tries = self._tries.get(channel, 0)
        self._tries[channel] = tries + 1
        first = min(RETRY_SECONDS, self._settle_seconds)
        seconds: float = max(self._settle_seconds, min(longest, first * 2 ** min(tries, 16)))
        return seconds

    def _schedule(self, channel: str, seconds: float) -> None:
        """Come back in that time; an appointment there is already gives way to a later one."""
        if timer := self._timers.pop(channel, None):
            timer.cancel()
        self._timers[channel] = asyncio.get_running_loop().call_later(
            seconds, self._enqueue, channel
        )

    def _enqueue(self, channel: str) -> None:
        if timer := self._timers.pop(channel, None):
            timer.cancel()
        if channel not in self._queued:
            self._queued.add(channel)
            self._waiting.put_nowait(channel)
