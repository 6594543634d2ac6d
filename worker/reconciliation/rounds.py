"""Going round all channels for ever: the recent past each time, and the rest piece by piece."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import structlog

from worker.applying.apply import StaleError
from worker.domain.position import TICKS_PER_SECOND, Range, Timetoken, is_after, shift
from worker.errors import PubNubError, RedisUnavailableError
from worker.reconciliation.reconcile import Reconciler
from worker.reconciliation.repair_queue import RepairQueue
from worker.store.entries import Entries
from worker.store.pending_repairs import GapCause
from worker.store.tables import Tables
from worker.telemetry.throttled_warning import ThrottledWarning

CONCURRENCY: Final = 8
RETRY_SECONDS: Final = 10.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How often what is looked at, in seconds."""

    every: float
    window: float
    full: float

    @property
    def pieces(self) -> int:
        """Into how many pieces the past is cut."""
        return max(1, math.ceil(self.full / self.every))

    def round_at(self, now: Timetoken) -> int:
        """Return the number of the round that is due."""
        return int(int(now) // (self.every * TICKS_PER_SECOND))

    def piece(self, number: int, oldest: Timetoken | None) -> Range | None:
        """Return what of the past a round looks at; None if it has nothing to look at.

        The pieces of one turn are cut from what was past when the turn began, so that nothing slips from a piece yet
        to come into one that is over (while ``oldest`` stays); the newest piece comes first, the oldest has no end.
        """
        turn, place = divmod(number, self.pieces)
        newest = shift(
            "0", round((turn * self.pieces * self.every - self.window) * TICKS_PER_SECOND)
        )
        if oldest is None or not is_after(newest, oldest):
            return Range(None, newest) if place == 0 else None
        length = (int(newest) - int(oldest)) // self.pieces + 1
        since = None if place == self.pieces - 1 else shift(newest, -length * (place + 1))
        return Range(since, shift(newest, -length * place))

    def stretches(self, numbers: range, oldest: Timetoken | None) -> list[Range]:
        """Return what rounds look at together: the pieces of one turn lie side by side, and are read as one."""
        found: list[Range] = []
        for _, turn in groupby(numbers, key=lambda number: number // self.pieces):
            if pieces := [piece for number in turn if (piece := self.piece(number, oldest))]:
                found.append(Range(pieces[-1].since, pieces[0].until))
        return found


class Rounds:
    """Reconciles every channel ever seen: additions that were never published, removals that were lost, of any age."""

    def __init__(
        self,
        reconcile: Reconciler,
        debts: RepairQueue,
        entries: Entries,
        tables: Tables,
        now: Callable[[], Awaitable[Timetoken]],
        schedule: Schedule,
    ) -> None:
        self._reconcile = reconcile
        self._entries = entries
        self._tables = tables
        self._debts = debts
        self._now = now
        self._schedule = schedule
        self._warning = ThrottledWarning(
            log, "reconcile_failed", "reconcile_works_again", reconcile.clock
        )

    async def run(self) -> None:
        """Make one round after the other until cancelled."""
        while True:
            await asyncio.sleep(await self._until_next())
            await self.once()

    async def once(self) -> None:
        """Make the round that is due now, with the pieces of those that nobody made: too long a round, or no worker."""
        now = await self._time()
        due = self._schedule.round_at(now)
        covered = await self._tables.rounds.read()
        made = (
            due - 1
            if covered is None or is_after(covered, now)
            else self._schedule.round_at(covered)
        )
        if made >= due:
            return  # another worker was quicker
        numbers = range(max(made, due - self._schedule.pieces) + 1, due + 1)
        await self._make(now, numbers)
        await self._tables.rounds.save(now)

    async def _make(self, now: Timetoken, numbers: range) -> None:
        channels = await self._tables.channels.all()
        self._debts.nudge(await self._tables.pending.read_all(channels))  # of workers that are gone
        log.info("round_starts", channels=len(channels), pieces=len(numbers))
        room = asyncio.Semaphore(CONCURRENCY)

        async def one(channel: str) -> None:
            async with room:
                await self._channel(channel, now, numbers)

        async with asyncio.TaskGroup() as group:
            for channel in sorted(channels):
                group.create_task(one(channel))

    async def _channel(self, channel: str, now: Timetoken, numbers: range) -> None:
        oldest = await self._entries.oldest(channel)
        await self._range(
            channel, Range(shift(now, -round(self._schedule.window * TICKS_PER_SECOND)))
        )
        for piece in self._schedule.stretches(numbers, oldest):
            await self._range(channel, piece)

    async def _range(self, channel: str, wanted: Range) -> None:
        while True:
            try:
                report = await self._reconcile.channel(channel, wanted)
            except PubNubError as error:
                # One channel must not keep the round from its end: its debt is another's business.
                self._warning.failing(channel, channel=channel, reason=str(error))
                self._warning.drop(channel)
                await self._tables.pending.mark([channel], GapCause.UNPROVEN)
            except (RedisUnavailableError, StaleError) as error:
                self._warning.failing(channel, channel=channel, reason=str(error))
                await asyncio.sleep(RETRY_SECONDS)
                continue
            else:
                self._warning.recovered(channel)
                if report.is_settled:
                    return
            self._debts.nudge([channel])
            return

    async def _until_next(self) -> float:
        """Return the seconds until the next round begins, by PubNub's clock."""
        now = await self._time()
        every = self._schedule.every
        return every - (int(now) / TICKS_PER_SECOND) % every

    async def _time(self) -> Timetoken:
        while True:
            try:
                now = await self._now()
            except PubNubError as error:
                self._warning.failing(self, reason=str(error))
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self._warning.recovered(self)
                return now
