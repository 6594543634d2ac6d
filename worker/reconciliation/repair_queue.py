"""The channels that are owed a repair."""

import asyncio
import math
from collections.abc import Callable, Collection, Iterable
from typing import Final

import structlog

from worker.applying.slots import Urgency
from worker.domain.position import TICKS_PER_SECOND, Range, shift
from worker.errors import FatalError, TallyError
from worker.reconciliation.backfills_left import BackfillsLeft
from worker.reconciliation.repair_steps import (
    LONGEST_FAILED_SECONDS,
    RepairState,
    RepairSteps,
)
from worker.reconciliation.waiting_channels import WaitingChannels
from worker.store.tables import Tables
from worker.telemetry.throttled_warning import ThrottledWarning

REPAIRS: Final = 500
"""Channels in repair at once. Most of them hold no slot."""

log = structlog.get_logger(__name__)


class RepairQueue:
    """A queue of channels to repair.

    Their marks are in Redis, so that a kill forgets none.
    """

    def __init__(
        self,
        steps: RepairSteps,
        tables: Tables,
        is_configured: Callable[[str], bool],
    ) -> None:
        """``is_configured``: a channel is named in the settings."""
        self.backfills = BackfillsLeft()
        self._steps = steps
        self._tables = tables
        self._is_configured = is_configured
        self._waiting = WaitingChannels()
        self._states: dict[str, RepairState] = {}
        self._running: set[str] = set()
        self._warning = ThrottledWarning(
            log,
            "reconcile_failed",
            "reconcile_works_again",
            steps.clock,
        )

    async def request(self, channels: Collection[str], stretch: Range | None) -> None:
        """Repair channels that have new marks, which are durable already.

        Whoever met the gap repairs it, also of a channel that another shard keeps right:
        the members of a group are spread over all shards.
        ``stretch`` is where additions may be missing; None: unknown.
        A stretch that is lost costs time only: a look finds everything.
        """
        if stretch:
            stretch = _earlier(stretch, self._steps.settle_seconds)
            for channel in channels:
                self._state(channel).add(stretch)
                self.backfills.add(channel)
            idle = set(channels) - self._running
            await self._steps.backfiller.request(idle, stretch)
        self._note(channels)

    def note(self, channels: Iterable[str]) -> None:
        """Repair those of these channels that this process keeps right.

        They have new marks, which are durable already.
        """
        self._note(filter(self._tables.channels.share.has, channels))

    def _note(self, channels: Iterable[str]) -> None:
        now = asyncio.get_running_loop().time()
        for channel in channels:
            state = self._state(channel)
            state.heard_at = now
            state.noted_at = min(state.noted_at, now)
            if channel in self._running:
                state.has_news = True
            elif not state.is_failing:
                self._wake(channel, state)
            # A channel that fails has its timer.

    def nudge(self, channels: Iterable[str]) -> None:
        """Repair channels that have marks, unless they wait already; as ``note`` does."""
        self.note([name for name in channels if self._is_idle(name)])

    def _state(self, channel: str) -> RepairState:
        urgency = Urgency.OWED
        if self._is_configured(channel):
            urgency = Urgency.CONFIGURED
        new = RepairState(urgency=urgency)
        return self._states.setdefault(channel, new)

    def _wake(self, channel: str, state: RepairState) -> None:
        """Let a channel wait for its turn, or for its gaps to settle."""
        if state.stretch:
            self._waiting.put(channel, state.urgency)
        else:
            seconds = self._steps.settle_seconds
            self._waiting.put_within(channel, state.urgency, seconds)

    def _is_idle(self, channel: str) -> bool:
        is_waiting = self._waiting.due_in(channel) < math.inf
        return not is_waiting and channel not in self._running

    async def run(self) -> None:
        """Repair channels that have marks or are noted, until cancelled."""
        await self._take_over()
        self.backfills.has_started = True
        async with asyncio.TaskGroup() as group:
            for _ in range(REPAIRS):
                group.create_task(self._work())

    async def _take_over(self) -> None:
        """Take over the repairs of earlier workers.

        Those of workers that end later are found by the rounds.
        """
        channels = await self._tables.channels.own()
        marks = await self._tables.pending.read_all(channels)
        progress = await self._tables.progress.read_all(channels)
        for channel in progress:
            self.backfills.add(channel)
        for channel in marks.keys() | progress.keys():
            if self._is_idle(channel):
                self._waiting.put(channel, self._state(channel).urgency)

    async def _work(self) -> None:
        while True:
            channel = await self._waiting.get()
            state = self._state(channel)
            state.has_news = False
            self._running.add(channel)
            try:
                seconds = await self._step(channel, state)
            finally:
                self._running.discard(channel)
            self._plan(channel, state, seconds)

    async def _step(self, channel: str, state: RepairState) -> float | None:
        """Make a step; a failure is this channel's alone."""
        try:
            seconds = await self._steps.run(channel, state)
        except FatalError:
            raise
        except TallyError as error:
            state.is_failing = True
            self._warning.failing(channel, channel=channel, reason=str(error))
            self.backfills.failed(channel, error)
            first = self._steps.first_retry
            return state.later_each_time(first, LONGEST_FAILED_SECONDS)
        state.is_failing = False
        self._warning.recovered(channel)
        if state.stretch is None:
            self.backfills.done(channel)
        return seconds

    def _plan(self, channel: str, state: RepairState, seconds: float | None) -> None:
        """Let a channel wait for its next step, or forget it."""
        if state.has_news and not state.is_failing:
            self._waiting.put(channel, state.urgency)
        elif seconds is not None:
            self._waiting.put_later(channel, state.urgency, seconds)
        else:
            # Until then its next look would be too early.
            loop = asyncio.get_running_loop()
            loop.call_at(state.not_before, self._forget, channel)

    def _forget(self, channel: str) -> None:
        """Forget a channel, unless a gap came meanwhile."""
        if self._is_idle(channel):
            self._states.pop(channel, None)


def _earlier(stretch: Range, seconds: float) -> Range:
    """Return a stretch that begins earlier: lists lag behind."""
    if stretch.since is None:
        return stretch
    ticks = round(seconds * TICKS_PER_SECOND)
    return Range(shift(stretch.since, -ticks), stretch.until)
