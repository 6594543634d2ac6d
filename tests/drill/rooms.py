"""The channels of a drill, and a Redis in which a worker has followed them until now."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from redis.asyncio import Redis

from tests.cursors import save_cursor
from tests.waiting import wait_until
from tests.worlds import KEYS, MESSAGE, World
from worker.domain.position import Cursor
from worker.source.names import Names
from worker.store.cursors import digest
from worker.store.tables import Tables

NEVER = str(10**9)
"""Seconds between two rounds over all channels: none falls into a drill."""


@dataclass(frozen=True, slots=True)
class Rooms:
    """So many channels, so many of them in a subscription."""

    channels: int
    each: int

    def __str__(self) -> str:
        return f"{self.channels} channels, {self.each} a subscription"

    @property
    def names(self) -> list[str]:
        """The names of the channels."""
        return [f"room-{number}" for number in range(self.channels)]

    @property
    def subscriptions(self) -> int:
        """The number of polls that a worker has open."""
        return -(-self.channels // self.each)

    @property
    def settings(self) -> dict[str, str]:
        """The settings of a worker that follows them."""
        return {
            "TALLY_CHANNELS": ",".join(self.names),
            "TALLY_CHANNELS_PER_SUBSCRIPTION": str(self.each),
        }


async def leave_off(redis: Redis, channels: Sequence[str], each: int, at: Cursor) -> None:
    """Leave Redis as a worker does that has read everything: the next one owes nothing."""
    tables = Tables(redis, KEYS)
    await tables.channels.add(channels)
    await tables.rounds.save(at.timetoken)
    for names in Names.of(channels).split(each):
        await tables.cursors.register(digest(names.all), names.all)
        await save_cursor(tables.cursors, digest(names.all), at)


async def probe(world: World, channels: Sequence[str]) -> None:
    """Let a user react in every channel, and wait until each is counted.

    Then every event before it was read, too.
    """
    user = f"probe-{time.monotonic_ns()}"
    for channel in channels:
        world.state.add(channel, MESSAGE, "probe", "✔", user)

    async def are_counted() -> bool:
        pipe = world.redis.pipeline(transaction=False)
        for channel in channels:
            pipe.hexists(KEYS.actions(channel, MESSAGE), f"probe:✔:{user}")
        return all(await pipe.execute())

    await wait_until(are_counted, what=world.logs)
