"""Looks at all channels, each as often as it is busy."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from random import Random
from typing import Final

import structlog

from worker.domain.position import TICKS_PER_SECOND, Timetoken, milliseconds
from worker.errors import FatalError, PubNubError, TallyError
from worker.reconciliation.reconcile import Reconciler
from worker.reconciliation.repair_queue import RepairQueue
from worker.reconciliation.schedule import Load, Look, Schedule
from worker.store.tables import Tables
from worker.telemetry.throttled_warning import ThrottledWarning

CONCURRENCY: Final = 40
"""Looks under way at once. Some of them wait."""

RETRY_SECONDS: Final = 10.0
"""Seconds until PubNub's clock is asked again."""
BEHIND: Final = 0.01
"""A part of a period, by which ``SteadyClock`` may be behind: that round has begun already."""

log = structlog.get_logger(__name__)


class Rounds:
    """Looks at every channel ever seen, unless it is owed a repair.

    Looks find additions and removals whose events were lost.
    What is proven is kept in Redis: a restart begins nothing anew.
    """

    def __init__(
        self,
        reconciler: Reconciler,
        repair_queue: RepairQueue,
        tables: Tables,
        now: Callable[[], Awaitable[Timetoken]],
        schedule: Schedule,
        random: Random,
    ) -> None:
        """``random`` orders what has waited equally long."""
        self.load: Load | None = None
        """What rounds have to do, as the newest one found it."""
        self.reconciler = reconciler
        self._repair_queue = repair_queue
        self._tables = tables
        self._now = now
        self._schedule = schedule
        self._random = random
        self._room = asyncio.Semaphore(CONCURRENCY)
        self._due: deque[Look] = deque()
        """The looks of the newest round that have not begun, in order."""
        self._under_way: set[str] = set()
        self._failing: set[str] = set()
        """They are looked at last."""
        self._warning = ThrottledWarning(
            log,
            "reconcile_failed",
            "reconcile_works_again",
            reconciler.clock,
        )

    def set_rate(self, rate: float) -> None:
        """Let the rounds count with another rate from now on."""
        self._schedule = replace(self._schedule, rate=rate)

    async def run(self) -> None:
        """Begin one round after the other until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await asyncio.sleep(await self._seconds_until_next())
                # A long look of one round does not hold up the next round.
                group.create_task(self.once())

    async def once(self) -> None:
        """Make every look that is due.

        A look that has not begun is left to the next round.
        """
        now = await self._pubnub_time()
        due = await self._plan(milliseconds(now))
        self._due.clear()  # the older round leaves them to this one
        self._due = due
        async with asyncio.TaskGroup() as group:
            for _ in range(min(len(due), CONCURRENCY)):
                group.create_task(self._work(due))
        if self._due is due:
            await self._tables.rounds.save(now)

    async def _plan(self, now: int) -> deque[Look]:
        """Return the looks that are due, in order."""
        channels = await self._tables.channels.own()
        marked = await self._tables.pending.read_all(channels)
        self._repair_queue.nudge(marked)  # also marks of workers that are gone
        ahead = now - await self._tables.server.now()
        load, planned = Load(self._schedule), []
        async for channel, proof in self._tables.proofs.scan(channels, ahead):
            load.add(proof, now)
            look = self._schedule.due(channel, proof, now)
            if look:
                planned.append(look)
        # Old rounds have gone on meanwhile.
        skipped = self._under_way.union(marked)
        looks = [look for look in planned if look.channel not in skipped]
        self._random.shuffle(looks)
        looks.sort(key=lambda look: (look.channel in self._failing, look.order))
        self.load = load
        log.info(
            "round_starts",
            channels=len(channels),
            active=load.active,
            looks=len(looks),
        )
        return deque(looks)

    async def _work(self, due: deque[Look]) -> None:
        """Make one look after the other, until a newer round has begun."""
        while due:
            # Looks of an older round may have taken all the room.
            async with self._room:
                if due:
                    await self._make(due.popleft())

    async def _make(self, look: Look) -> None:
        """Make a look, unless another worker has made it meanwhile."""
        channel = look.channel
        self._under_way.add(channel)
        try:
            proof = await self._tables.proofs.read(channel)
            if not look.is_made(proof):
                await self._look(look)
        finally:
            self._under_way.discard(channel)

    async def _look(self, look: Look) -> None:
        """Compare a channel; the repair queue gets what is in doubt."""
        channel = look.channel
        try:
            report = await self.reconciler.channel(channel, look.wanted)
        except FatalError:
            raise
        except TallyError as error:
            # It is not proven, so the next round tries it again, after all others.
            self._failing.add(channel)
            self._warning.failing(channel, channel=channel, reason=str(error))
            return
        self._failing.discard(channel)
        self._warning.recovered(channel)
        if not report.is_settled:
            self._repair_queue.nudge([channel])

    async def _seconds_until_next(self) -> float:
        """Return the seconds until the next round begins, by PubNub's clock."""
        now = await self._pubnub_time()
        period = self._schedule.period
        seconds = period - (int(now) / TICKS_PER_SECOND) % period
        if seconds < BEHIND * period:
            return seconds + period
        return seconds

    async def _pubnub_time(self) -> Timetoken:
        while True:
            try:
                now = await self._now()
            except PubNubError as error:
                self._warning.failing(self, reason=str(error))
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self._warning.recovered(self)
                return now
