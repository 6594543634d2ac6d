"""Channels that wait for their time, then for their turn."""

import asyncio
import math
from itertools import count

from worker.applying.slots import Urgency


class WaitingChannels:
    """A queue with at most one timer for each channel."""

    def __init__(self) -> None:
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._ready: asyncio.PriorityQueue[tuple[Urgency, int, str]] = asyncio.PriorityQueue()
        self._queued: set[str] = set()
        self._numbers = count()

    async def get(self) -> str:
        """Return the most urgent channel whose time has come."""
        _, _, channel = await self._ready.get()
        self._queued.discard(channel)
        return channel

    def put(self, channel: str, urgency: Urgency) -> None:
        """Let a channel wait for its turn only."""
        self._cancel_timer(channel)
        if channel not in self._queued:
            self._queued.add(channel)
            self._ready.put_nowait((urgency, next(self._numbers), channel))

    def put_later(self, channel: str, urgency: Urgency, seconds: float) -> None:
        """Let a channel wait so many seconds first.

        A time that was set before is forgotten.
        """
        self._cancel_timer(channel)
        loop = asyncio.get_running_loop()
        self._timers[channel] = loop.call_later(seconds, self.put, channel, urgency)

    def put_within(
        self,
        channel: str,
        urgency: Urgency,
        seconds: float,
    ) -> None:
        """Let a channel wait so many seconds at most."""
        if self.due_in(channel) > seconds:
            self.put_later(channel, urgency, seconds)

    def due_in(self, channel: str) -> float:
        """Return the seconds until a channel's turn; infinite if it does not wait."""
        if channel in self._queued:
            return 0.0
        timer = self._timers.get(channel)
        if timer is None:
            return math.inf
        return timer.when() - asyncio.get_running_loop().time()

    def _cancel_timer(self, channel: str) -> None:
        timer = self._timers.pop(channel, None)
        if timer:
            timer.cancel()
