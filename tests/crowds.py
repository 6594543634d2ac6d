"""Users who react and take it back, as a seed has them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Final

from tests.waiting import wait_until
from tests.worlds import MESSAGE
from worker.emulator import Emulator, State

VALUES: Final = "👍🎉❤"
UNHEARD: Final = 40
"""Acts after which a crowd pauses until somebody polls: PubNub's cache holds a hundred events."""


class Crowd:
    """Eight users and five messages in each channel: each act adds a reaction or removes it."""

    def __init__(self, state: State, seed: int, channels: tuple[str, ...] = ("room",)) -> None:
        self._state = state
        self._random = Random(seed)
        self._channels = channels
        self._live: dict[tuple[str, str, str, str], int] = {}
        self.acts = 0

    def act(self) -> None:
        """Add a reaction, or remove it where it exists."""
        message = str(int(MESSAGE) + self._random.randrange(5))
        value = self._random.choice(VALUES)
        uuid = f"user-{self._random.randrange(8)}"
        channel = self._random.choice(self._channels)
        reaction = (channel, message, value, uuid)
        self.acts += 1
        timetoken = self._live.pop(reaction, None)
        if timetoken is not None:
            self._state.remove(channel, message, timetoken, uuid)
            return
        change = self._state.add(channel, message, "reaction", value, uuid)
        self._live[reaction] = change.actions[-1].timetoken

    @asynccontextmanager
    async def acting(self, emulator: Emulator, per_second: float = 50) -> AsyncIterator["Crowd"]:
        """Act at a steady rate for as long as this is open, and pause while nobody polls."""
        acting = asyncio.create_task(self._act_on(emulator, 1 / per_second))
        try:
            yield self
        finally:
            acting.cancel()
            await asyncio.wait([acting])

    async def _act_on(self, emulator: Emulator, pause: float) -> None:
        polls, left = 0, UNHEARD
        while True:
            if emulator.requests["subscribe"] != polls:
                polls, left = emulator.requests["subscribe"], UNHEARD
            if left:
                left -= 1
                self.act()
            await asyncio.sleep(pause)

    async def has_acted(self, times: int) -> None:
        """Return after so many more acts."""
        goal = self.acts + times
        await wait_until(lambda: self.acts >= goal)
