"""Reconciles all channels, again and again.

Each round reads the recent past, and one piece of the older past.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import structlog

from worker.domain.position import (
    TICKS_PER_SECOND,
    Range,
    Timetoken,
    is_after,
    shift,
)
from worker.errors import PubNubError, RedisUnavailableError, StaleError
from worker.reconciliation.reconcile import Reconciler
from worker.reconciliation.repair_queue import RepairQueue
from worker.store.entries import Entries
from worker.store.pending_repairs import GapCause
from worker.store.tables import Tables
from worker.telemetry.throttled_warning import ThrottledWarning

CONCURRENCY: Final = 8
"""Channels that are reconciled side by side."""
RETRY_SECONDS: Final = 10.0
"""Seconds until a request that failed is repeated."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How often each part of the past is read, in seconds."""

    every: float
    """From the beginning of one round to the next."""
    window: float
    """The recent past, which every round reads."""
    full: float
    """The time in which the whole past is read once: a turn of rounds."""

    @property
    def pieces(self) -> int:
        """Pieces of the past, one for each round of a turn."""
        return max(1, math.ceil(self.full / self.every))

    def round_at(self, now: Timetoken) -> int:
        """Return the number of the round that is due."""
        return int(int(now) // (self.every * TICKS_PER_SECOND))

    def piece(self, number: int, oldest: Timetoken | None) -> Range | None:
        """Return which piece of the past a round reads.

        None if the piece is empty.
        The pieces of one turn are cut from what was past when the turn began.
        So no action slips from a piece to come into one that is over,
        while ``oldest`` stays.
        The newest piece comes first. The oldest piece has no end.
        """
        turn, index = divmod(number, self.pieces)
        newest = self._newest(turn)
        if oldest is None or not is_after(newest, oldest):
            return Range(None, newest) if index == 0 else None
        length = (int(newest) - int(oldest)) // self.pieces + 1
        is_oldest = index == self.pieces - 1
        since = None if is_oldest else shift(newest, -length * (index + 1))
        return Range(since, shift(newest, -length * index))

    def _turn_of(self, number: int) -> int:
        return number // self.pieces

    def _newest(self, turn: int) -> Timetoken:
        """Return where the recent past began when a turn began."""
        seconds = turn * self.pieces * self.every - self.window
        return shift("0", round(seconds * TICKS_PER_SECOND))

    def stretches(
        self,
        numbers: range,
        oldest: Timetoken | None,
    ) -> list[Range]:
        """Return what several rounds read together.

        The pieces of one turn lie side by side: they are one stretch.
        """
        stretches: list[Range] = []
        for _, turn in groupby(numbers, key=self._turn_of):
            ranges = [self.piece(number, oldest) for number in turn]
            pieces = [piece for piece in ranges if piece]
            if pieces:
                stretches.append(Range(pieces[-1].since, pieces[0].until))
        return stretches


class Rounds:
    """Reconciles every channel ever seen.

    Rounds find additions and removals of any age whose events were lost.
    """

    def __init__(
        self,
        reconciler: Reconciler,
        repair_queue: RepairQueue,
        entries: Entries,
        tables: Tables,
        now: Callable[[], Awaitable[Timetoken]],
        schedule: Schedule,
    ) -> None:
        self._reconciler = reconciler
        self._repair_queue = repair_queue
        self._entries = entries
        self._tables = tables
        self._now = now
        self._schedule = schedule
        self._warning = ThrottledWarning(
            log,
            "reconcile_failed",
            "reconcile_works_again",
            reconciler.clock,
        )

    async def run(self) -> None:
        """Make one round after the other until cancelled."""
        while True:
            await asyncio.sleep(await self._seconds_until_next())
            await self.once()

    async def once(self) -> None:
        """Make the round that is due, together with rounds that were left out.

        A round is left out if the one before takes too long,
        or if no worker runs.
        If another worker has made the round, do nothing.
        """
        now = await self._pubnub_time()
        due = self._schedule.round_at(now)
        made = await self._made(now, due)
        if made >= due:
            return
        first = max(made, due - self._schedule.pieces) + 1
        await self._make(now, range(first, due + 1))
        await self._tables.rounds.save(now)

    async def _made(self, now: Timetoken, due: int) -> int:
        """Return the number of the newest complete round."""
        began = await self._tables.rounds.read()
        if began is None or is_after(began, now):
            return due - 1
        return self._schedule.round_at(began)

    async def _make(self, now: Timetoken, numbers: range) -> None:
        channels = await self._tables.channels.all()
        marked = await self._tables.pending.read_all(channels)
        self._repair_queue.nudge(marked)  # also marks of workers that are gone
        log.info("round_starts", channels=len(channels), pieces=len(numbers))
        room = asyncio.Semaphore(CONCURRENCY)

        async def look_at(channel: str) -> None:
            async with room:
                await self._channel(channel, now, numbers)

        async with asyncio.TaskGroup() as group:
            for channel in sorted(channels):
                group.create_task(look_at(channel))

    async def _channel(
        self,
        channel: str,
        now: Timetoken,
        numbers: range,
    ) -> None:
        """Reconcile the recent past, and a piece of the older past."""
        oldest = await self._entries.oldest(channel)
        window = round(self._schedule.window * TICKS_PER_SECOND)
        await self._range(channel, Range(shift(now, -window)))
        for stretch in self._schedule.stretches(numbers, oldest):
            await self._range(channel, stretch)

    async def _range(self, channel: str, wanted: Range) -> None:
        """Reconcile a range.

        The repair queue repairs what is left in doubt.
        """
        is_settled = None
        while is_settled is None:
            is_settled = await self._try(channel, wanted)
        if not is_settled:
            self._repair_queue.nudge([channel])

    async def _try(self, channel: str, wanted: Range) -> bool | None:
        """Return whether nothing is in doubt; None to try again."""
        try:
            report = await self._reconciler.channel(channel, wanted)
        except PubNubError as error:
            # One channel must not delay the end of the round.
            self._warning.failing(channel, channel=channel, reason=str(error))
            self._warning.drop(channel)
            await self._tables.pending.mark([channel], GapCause.UNPROVEN)
            return False
        except (RedisUnavailableError, StaleError) as error:
            self._warning.failing(channel, channel=channel, reason=str(error))
            await asyncio.sleep(RETRY_SECONDS)
            return None
        self._warning.recovered(channel)
        return report.is_settled

    async def _seconds_until_next(self) -> float:
        """Return the seconds until the next round begins, by PubNub's clock."""
        now = await self._pubnub_time()
        every = self._schedule.every
        return every - (int(now) / TICKS_PER_SECOND) % every

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
