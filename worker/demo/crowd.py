"""Many users side by side, all together at one rate."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from random import Random
from types import TracebackType
from typing import Final, Self

from worker.demo.user import Outcome, Place, User

CHANNELS: Final = ("demo.cats", "demo.football", "demo.news", "demo.team")
MESSAGES: Final = 80
NAMES: Final = (
    *("ana", "ben", "cleo", "dan", "eva", "finn", "gus", "hana", "ivo", "jo"),
    *("kim", "lea", "max", "nina", "omar", "pia", "quinn", "rosa", "sam", "tess"),
)
LAG_SECONDS: Final = 0.5
"""How much a person who is held up makes up for afterwards."""


def places(now: float, random: Random) -> list[Place]:
    """Return messages of the last minutes, in all channels, the most popular first."""
    written = [(int((now - 5 * number) * 10_000_000), number) for number in range(MESSAGES)]
    found = [(CHANNELS[number % len(CHANNELS)], str(timetoken)) for timetoken, number in written]
    random.shuffle(found)
    return found


class Crowd:
    """People who react; open it inside the running loop."""

    def __init__(self, origin: str, rate: float, seed: int, places: Sequence[Place]) -> None:
        self.deeds: Counter[Outcome] = Counter()
        self._origin = origin
        self._rate = rate
        self._seed = seed
        self._places = places
        self._people: list[User] = []
        self._leaving = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            for name in NAMES:
                random = Random(f"{self._seed}:{name}")  # noqa: S311 - repeatable, not secret
                self._people.append(User(self._origin, name, self._places, random))
                self._leaving.push_async_callback(self._people[-1].leave)
            await asyncio.gather(*(user.arrive() for user in self._people))
        except BaseException:
            await self._leaving.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._leaving.aclose()

    @property
    def done(self) -> int:
        """How many things were done so far, conflicts and failures included."""
        return self.deeds.total()

    async def react(self, seconds: float) -> float:
        """React for so long; return the seconds until the last answer came."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number, user in enumerate(self._people):
                random = Random(f"{self._seed}:{number}")  # noqa: S311 - as above
                group.create_task(
                    self._live(user, random, began + number / self._rate, began + seconds)
                )
        return time.monotonic() - began

    async def _live(self, user: User, random: Random, due: float, end: float) -> None:
        interval = len(self._people) / self._rate
        while due < end and time.monotonic() < end:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self.deeds[await user.act()] += 1
            due = max(due + interval * random.uniform(0.5, 1.5), time.monotonic() - LAG_SECONDS)
