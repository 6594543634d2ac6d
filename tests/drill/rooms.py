"""The channels of a drill, and a Redis in which a worker has followed them until now."""

from collections.abc import Sequence
from dataclasses import dataclass

from redis.asyncio import Redis

from tests.cursors import save_cursor
from tests.worlds import KEYS
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
        await save_cursor(tables.cursors, digest(names.all), at)
