"""Users by the thousand, over a set of reactions that does not grow; nobody misses any of it who follows.

PubNub keeps an answer's worth of a hundred messages, and what came on top of that is gone. So each subscription is told
no more than it can be told in one answer since what it had received when it asked last: then an event that is missing
afterwards is one that the worker has lost. Who asks for nothing (a worker that is being replaced) is told nothing more.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Final

from tests.end_to_end.processes import Crowd
from worker.emulator import State
from worker.emulator.stream import Answer, Cursor
from worker.emulator.subscription import Subscription

FULL: Final = 90
"""Events that wait for whoever asks, at full load: an answer of PubNub's may have a few more."""
STEADY: Final = 40
"""Events between two polls at a steady rate. A killed worker may be so far behind, and as much may follow."""
TICK_SECONDS: Final = 0.05
LATE_SECONDS: Final = 5
"""For how long acts that found no room are made up for."""


class Load:
    """The users of some channels, who add a reaction or take it back; none of it is over HTTP, so they cost little."""

    def __init__(
        self, state: State, seed: int, channels: Sequence[str], room: int = STEADY
    ) -> None:
        """``room`` is how many events may be on their way to a subscription. Make it before the first worker polls."""
        self._state = state
        self._random = Random(seed)
        self._seed = seed
        self._crowds: dict[str, Crowd] = {}
        self._room = room
        self._left: dict[str, list[int]] = {}
        self._poll, self._floods = state.poll, False
        state.poll = self._answer  # type: ignore[method-assign] # the only place that tells what has been received
        self.channels = list(channels)
        """Where they act from now on."""
        self.most_behind = 0.0
        """How many acts waited for room at the worst; they come later, so the rate is what it should be."""

    @property
    def acts(self) -> int:
        """How often they have acted."""
        return sum(crowd.acts for crowd in self._crowds.values())

    def act(self, channel: str) -> None:
        """Let somebody act in this channel, whoever follows it."""
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
        """Have an answer's worth of events wait for whoever asks, for as long as this is open: nobody ever waits."""
        self._floods = True
        try:
            yield
        finally:
            self._floods = False

    async def _act_on(self, per_second: float) -> None:
        due, before = 0.0, time.monotonic()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = time.monotonic()
            due, before = min(due + per_second * (now - before), per_second * LATE_SECONDS), now
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
        """Note how much room there is once this is answered; whoever asks has received all before the cursor."""
        answer = self._poll(subscription, cursor)
        left = [max(0, self._room - len(answer.messages))]
        self._left.update(dict.fromkeys(subscription.channels, left))
        heard = [channel for channel in subscription.channels if channel in self.channels]
        if not (self._floods and cursor.timetoken and heard and left[0]):
            return answer
        while left[0]:
            self._has_acted(self._random.choice(heard))
        return self._poll(subscription, cursor)
