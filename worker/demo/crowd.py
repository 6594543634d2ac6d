"""Many users who react side by side, all together at one rate."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Final, Self

from worker.demo.credentials import CredentialsOf, no_credentials
from worker.demo.user import Outcome, Place, User

CHANNELS: Final = ("demo.cats", "demo.football", "demo.news", "demo.team")
MESSAGES: Final = 80
NAMES: Final = (
    *("ana", "ben", "cleo", "dan", "eva", "finn", "gus", "hana", "ivo", "jo"),
    *("kim", "lea", "max", "nina", "omar", "pia", "quinn", "rosa", "sam", "tess"),
)
LAG_SECONDS: Final = 0.5
"""How much delay a user makes up for. A longer delay lowers the rate."""


def places(now: float, random: Random) -> list[Place]:
    """Return messages of the minutes before ``now``, the most popular first."""
    messages: list[Place] = []
    for number in range(MESSAGES):
        channel = CHANNELS[number % len(CHANNELS)]
        timetoken = int((now - 5 * number) * 10_000_000)
        messages.append((channel, str(timetoken)))
    random.shuffle(messages)
    return messages


class Crowd:
    """Users who react to messages. Open it inside the running loop."""

    def __init__(
        self,
        origin: str,
        rate: float,
        seed: int,
        places: Sequence[Place],
        credentials: CredentialsOf = no_credentials,
    ) -> None:
        """Make a crowd for the PubNub at ``origin``; ``rate`` is a second."""
        self._credentials = credentials
        self.outcomes: Counter[Outcome] = Counter()
        self._origin = origin
        self._interval = len(NAMES) / rate
        self._seed = seed
        self._places = places
        self._users: list[User] = []

    async def __aenter__(self) -> Self:
        for name in NAMES:
            seed = f"{self._seed}:{name}"
            credentials = self._credentials(name)
            user = User(self._origin, name, self._places, seed, credentials)
            self._users.append(user)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*map(User.close, self._users))

    def progress(self, seconds: float) -> str:
        """Return the reactions in these seconds as text."""
        reactions = self.outcomes.total()
        rate = reactions / seconds if seconds else 0
        return f"{reactions:,} reactions, {rate:.0f}/s, {seconds:.0f} s"

    async def react(self, seconds: float) -> float:
        """React for so many seconds. Return the seconds until the last answer."""
        start = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number, user in enumerate(self._users):
                first = start + number / len(NAMES) * self._interval
                acts = self._act_repeatedly(user, first, start + seconds)
                group.create_task(acts)
        return time.monotonic() - start

    async def _act_repeatedly(self, user: User, due: float, end: float) -> None:
        while due < end and time.monotonic() < end:
            await asyncio.sleep(due - time.monotonic())
            outcome = await user.act()
            self.outcomes[outcome] += 1
            pause = user.random.uniform(0.5, 1.5) * self._interval
            due = max(due + pause, time.monotonic() - LAG_SECONDS)
