"""A steady or a full load, which loses no event that a worker could have read.

PubNub keeps a hundred messages for an answer; older ones are gone. So a subscription gets no more
than one answer's worth of events since the cursor of its latest poll. An event that is missing
afterwards is one that the worker has lost. A subscription that does not poll gets nothing more.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Final

from tests.crowds import Crowd
from worker.emulator import State
from worker.emulator.stream import Answer, Cursor
from worker.emulator.subscription import Subscription

FULL: Final = 90
"""Events that wait for each poll at full load; an answer may have a few more."""
STEADY: Final = 40
"""Events between two polls at a steady rate.

A killed worker may be so many behind, and as many may follow.
"""
TICK_SECONDS: Final = 0.05
LATE_SECONDS: Final = 5
"""For how long acts that found no room are made up for."""


class Load:
    """Users of some channels; they call the emulator directly, so they cost little."""

    def __init__(
        self,
        state: State,
        seed: int,
        channels: Sequence[str],
        room: int = STEADY,
        *,
        answers: int = 1,
    ) -> None:
        """Make it before the first worker polls.

        ``room`` is how many events may be on their way to a subscription. ``answers`` says how
        many of its latest answers are on their way, too: a worker may have to read them again.
        """
        self._state = state
        self._random = Random(seed)
        self._seed = seed
        self._crowds: dict[str, Crowd] = {}
        self._room = room
        self._left: dict[str, list[int]] = {}
        self._answers = answers
        self._cursors: dict[tuple[str, ...], deque[Cursor]] = {}
        self._is_full = False
        self._poll = state.poll
        state.poll = self._answer  # type: ignore[method-assign] # the only place that knows cursors
        self.channels = list(channels)
        """The channels in which users act from now on."""
        self.most_behind = 0.0
        """How many acts waited for room at the worst; they came later."""

    @property
    def acts(self) -> int:
        """The number of acts until now."""
        return sum(crowd.acts for crowd in self._crowds.values())

    def act(self, channel: str) -> None:
        """Let a user act in this channel, whether it is followed or not."""
        if channel not in self._crowds:
            self._crowds[channel] = Crowd(self._state, self._seed + len(self._crowds), (channel,))
        self._crowds[channel].act()

    @asynccontextmanager
    async def steady(self, per_second: float) -> AsyncIterator[None]:
        """Act at this rate, over all channels, for as long as this is open."""
        acting = asyncio.create_task(self._act_on(per_second))
        try:
            yield
        finally:
            acting.cancel()
            await asyncio.wait([acting])
        if not acting.cancelled():
            acting.result()

    @asynccontextmanager
    async def full(self) -> AsyncIterator[None]:
        """Have an answer's worth of events ready for each poll, for as long as this is open."""
        self._is_full = True
        try:
            yield
        finally:
            self._is_full = False

    async def _act_on(self, per_second: float) -> None:
        due, before = 0.0, time.monotonic()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = time.monotonic()
            due = min(due + per_second * (now - before), per_second * LATE_SECONDS)
            before = now
            for _ in range(int(due)):
                due -= self._has_acted(self._random.choice(self.channels))
            self.most_behind = max(self.most_behind, due)

    def _has_acted(self, channel: str) -> bool:
        left = self._left.get(channel)
        if left is None or not left[0]:
            return False
        left[0] -= 1
        self.act(channel)
        return True

    def _answer(self, subscription: Subscription, cursor: Cursor) -> Answer:
        """Answer a poll, and note how much room there is: all before the cursor has arrived."""
        answer = self._poll(subscription, cursor)
        unread = self._poll(subscription, self._oldest(subscription, cursor))
        least = 0 if answer.messages else 1  # a poll that waits would wait for ever
        left = [max(least, self._room - len(unread.messages))]
        self._left.update(dict.fromkeys(subscription.channels, left))
        channels = [channel for channel in subscription.channels if channel in self.channels]
        if not (self._is_full and cursor.timetoken and channels and left[0]):
            return answer
        while left[0]:
            self._has_acted(self._random.choice(channels))
        return self._poll(subscription, cursor)

    def _oldest(self, subscription: Subscription, cursor: Cursor) -> Cursor:
        """Return the cursor from which a worker may read again."""
        names = tuple(subscription.channels)
        cursors = self._cursors.setdefault(names, deque(maxlen=self._answers))
        if cursors and cursor.timetoken < cursors[-1].timetoken:
            cursors.clear()  # it does so now
        if not cursors or cursors[-1] != cursor:
            cursors.append(cursor)
        return cursors[0]
