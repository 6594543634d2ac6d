"""People who react and take it back, as a seed has them, whatever PubNub makes of it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Final

from worker.emulator import RefusedError, State

FIRST: Final = "17600000000000000"
MESSAGES: Final = 20
USERS: Final = 30
VALUES: Final = "👍🎉❤"
REMOVALS: Final = 0.45
"""The share of acts that take something back; the rest add, so that there is ever more to get wrong."""
BURST: Final = 130
"""Acts at once in one channel, more than PubNub's cache holds."""
PAST: Final = 300
"""Reactions of each channel that are there before anybody listens, and stay."""
TICK_SECONDS: Final = 0.02


class Crowd:
    """Users of one keyset, called rather than polled: they cost next to nothing."""

    def __init__(self, state: State, random: Random, channels: Sequence[str]) -> None:
        self._state = state
        self._random = random
        self._channels = channels
        self._own: list[tuple[str, str, int, str]] = []
        self.acts = 0
        self.refused = 0
        for channel in channels:
            for number in range(PAST):
                state.add(channel, FIRST, "reaction", "🕰", f"old-{number}", published=False)

    @asynccontextmanager
    async def acting(self, per_second: float, seconds_between_bursts: float) -> AsyncIterator[None]:
        """Act for as long as this is open, now and then far too much at once."""
        acting = asyncio.create_task(
            self._act_on(per_second, TICK_SECONDS / seconds_between_bursts)
        )
        try:
            yield
        finally:
            acting.cancel()
            await asyncio.wait([acting])
        if not acting.cancelled():
            acting.result()

    async def _act_on(self, per_second: float, bursts: float) -> None:
        due = 0.0
        while True:
            due += per_second * TICK_SECONDS
            while due >= 1:
                due -= 1
                self.act(self._random.choice(self._channels))
            if self._random.random() < bursts:
                channel = self._random.choice(self._channels)
                for _ in range(BURST):
                    self.act(channel)
            await asyncio.sleep(TICK_SECONDS)

    def act(self, channel: str) -> None:
        """Let somebody react in this channel, or take a reaction back in any."""
        self.acts += 1
        try:
            if self._own and self._random.random() < REMOVALS:
                self._take_back()
            else:
                self._react(channel)
        except RefusedError:  # it is there already; or it went with another of the same timetoken
            self.refused += 1

    def _react(self, channel: str) -> None:
        message = str(int(FIRST) + self._random.randrange(MESSAGES))
        user = f"user-{self._random.randrange(USERS)}"
        change = self._state.add(channel, message, "reaction", self._random.choice(VALUES), user)
        self._own += [(channel, message, action.timetoken, user) for action in change.actions]

    def _take_back(self) -> None:
        index = self._random.randrange(len(self._own))
        self._own[index], self._own[-1] = self._own[-1], self._own[index]
        self._state.remove(*self._own.pop())
