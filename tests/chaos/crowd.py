"""Users who react and take it back, as a seed has them, whatever PubNub makes of it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Final

from worker.emulator import RefusedError, State

FIRST: Final = 17_600_000_000_000_000
MESSAGES: Final = 20
USERS: Final = 30
VALUES: Final = "👍🎉❤"
REMOVALS: Final = 0.45
"""The share of acts that remove something; the others add, so the number of reactions grows."""
BURST: Final = 130
"""Acts at once in one channel: more than PubNub's cache holds."""
PAST: Final = 300
"""Reactions of each channel from before the first worker; they stay."""
TICK_SECONDS: Final = 0.02


class Crowd:
    """Users of one keyset. They call the emulator directly, so they cost next to nothing."""

    def __init__(self, state: State, random: Random, channels: Sequence[str]) -> None:
        self._state = state
        self._random = random
        self._channels = channels
        self._live: list[tuple[str, str, int, str]] = []
        self.acts = 0
        for channel in channels:
            for number in range(PAST):
                state.add(channel, str(FIRST), "reaction", "🕰", f"old-{number}", published=False)

    @asynccontextmanager
    async def acting(self, per_second: float, seconds_between_bursts: float) -> AsyncIterator[None]:
        """Act for as long as this is open, now and then far too much at once."""
        acting = asyncio.create_task(self._act_on(per_second, seconds_between_bursts))
        try:
            yield
        finally:
            acting.cancel()
            await asyncio.wait([acting])
        if not acting.cancelled():
            acting.result()

    async def _act_on(self, per_second: float, seconds_between_bursts: float) -> None:
        due = 0.0
        while True:
            due += per_second * TICK_SECONDS
            while due >= 1:
                due -= 1
                self._act(self._random.choice(self._channels))
            if self._random.random() < TICK_SECONDS / seconds_between_bursts:
                channel = self._random.choice(self._channels)
                for _ in range(BURST):
                    self._act(channel)
            await asyncio.sleep(TICK_SECONDS)

    def _act(self, channel: str) -> None:
        """Add a reaction in this channel, or remove one in any channel."""
        self.acts += 1
        try:
            if self._live and self._random.random() < REMOVALS:
                self._remove()
            else:
                self._add(channel)
        except RefusedError:
            pass  # it exists already; or it went with another action of the same timetoken

    def _add(self, channel: str) -> None:
        message = str(FIRST + self._random.randrange(MESSAGES))
        user = f"user-{self._random.randrange(USERS)}"
        change = self._state.add(channel, message, "reaction", self._random.choice(VALUES), user)
        self._live += [(channel, message, action.timetoken, user) for action in change.actions]

    def _remove(self) -> None:
        index = self._random.randrange(len(self._live))
        self._live[index], self._live[-1] = self._live[-1], self._live[index]
        self._state.remove(*self._live.pop())
