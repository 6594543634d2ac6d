"""Slots: how many passes over history are under way at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import IntEnum
from heapq import heappop, heappush
from itertools import count
from typing import Final

SLOTS: Final = 8
"""Passes over history at once: some eighty requests a second."""


class Urgency(IntEnum):
    """Who gets a slot first. Among equals, the one who has waited longest."""

    CONFIGURED = 0
    """A channel that is named in the settings, and is owed a repair."""
    OWED = 1
    """Another channel that is owed a repair."""
    ROUND = 2
    """A channel that is only looked at."""


@dataclass(slots=True)
class _Holder:
    """A task that has a slot, or had one before it began to wait."""

    urgency: Urgency
    has_slot: bool = True


class Slots:
    """A semaphore with priorities. A task that only waits gives its slot back."""

    def __init__(self, free: int = SLOTS) -> None:
        self._free = free
        self._waiting: list[tuple[Urgency, int, asyncio.Future[None]]] = []
        self._numbers = count()
        self._holder: ContextVar[_Holder | None] = ContextVar("holder", default=None)

    @asynccontextmanager
    async def held(self, urgency: Urgency) -> AsyncIterator[None]:
        """Hold a slot until the block ends."""
        await self._take(urgency)
        holder = _Holder(urgency)
        token = self._holder.set(holder)
        try:
            yield
        finally:
            self._holder.reset(token)
            if holder.has_slot:
                self._give_back()

    async def pause(self, seconds: float) -> None:
        """Sleep. A slot that the current task holds is free meanwhile."""
        holder = self._holder.get()
        if holder is None:
            await asyncio.sleep(seconds)
            return

        self._give_back()
        holder.has_slot = False
        await asyncio.sleep(seconds)
        await self._take(holder.urgency)
        holder.has_slot = True

    async def give_way(self) -> None:
        """Let a task that is more urgent have the slot of the current task first."""
        holder = self._holder.get()
        if holder and self._waiting and self._waiting[0][0] < holder.urgency:
            await self.pause(0)

    async def _take(self, urgency: Urgency) -> None:
        if self._free:
            self._free -= 1
            return

        turn = asyncio.get_running_loop().create_future()
        heappush(self._waiting, (urgency, next(self._numbers), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give_back()
            raise

    def _give_back(self) -> None:
        """Give a slot to the first task that still waits for one."""
        while self._waiting:
            _, _, turn = heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
