"""Users who react and take it back, as a seed has them."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Final

from tests.waiting import wait_until
from tests.worlds import MESSAGE
from worker.emulator import Emulator, RefusedError, State

VALUES: Final = "👍🎉❤"
UNHEARD: Final = 40
"""Acts after which a crowd pauses until somebody polls: PubNub's cache holds a hundred events."""


class Crowd:
    """Users and messages in each channel: an act adds a reaction, or removes it if it exists."""

    def __init__(
        self,
        state: State,
        seed: int | str,
        channels: tuple[str, ...] = ("room",),
        *,
        messages: int = 5,
        users: int = 8,
    ) -> None:
        self._state = state
        self._random = Random(seed)
        self._channels = channels
        self._messages = messages
        self._users = users
        self._live: dict[tuple[str, str, str, str], int] = {}
        self.acts = 0

    def act(self, channel: str = "") -> None:
        """Add a reaction, or remove it where it exists; in any channel, if none is given."""
        message = str(int(MESSAGE) + self._random.randrange(self._messages))
        value = self._random.choice(VALUES)
        uuid = f"user-{self._random.randrange(self._users)}"
        channel = channel or self._random.choice(self._channels)
        reaction = (channel, message, value, uuid)
        self.acts += 1
        timetoken = self._live.pop(reaction, None)
        with suppress(RefusedError):  # PubNub made two of one reaction, or removed two as one
            if timetoken is not None:
                self._state.remove(channel, message, timetoken, uuid)
                return
            change = self._state.add(channel, message, "reaction", value, uuid)
            self._live[reaction] = change.actions[-1].timetoken

    @asynccontextmanager
    async def acting(
        self, emulator: Emulator, per_second: float = 50, *, pauses: bool = True
    ) -> AsyncIterator["Crowd"]:
        """Act at a steady rate for as long as this is open; it ``pauses`` while nobody polls."""
        unheard = UNHEARD if pauses else sys.maxsize
        acting = asyncio.create_task(self._act_on(emulator, 1 / per_second, unheard))
        try:
            yield self
        finally:
            acting.cancel()
            await asyncio.wait([acting])
        if not acting.cancelled():
            acting.result()

    async def _act_on(self, emulator: Emulator, pause: float, unheard: int) -> None:
        polls, left = 0, unheard
        while True:
            if emulator.requests["subscribe"] != polls:
                polls, left = emulator.requests["subscribe"], unheard
            if left:
                left -= 1
                self.act()
            await asyncio.sleep(pause)

    async def has_acted(self, times: int) -> None:
        """Return after so many more acts."""
        goal = self.acts + times
        await wait_until(lambda: self.acts >= goal)
