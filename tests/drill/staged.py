"""The scene of every drill."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from redis.asyncio import Redis

from tests.end_to_end.processes import KEY, KEYS, Stage
from tests.redis_server import RedisServer
from worker.domain.position import Cursor
from worker.emulator import Emulator
from worker.source.names import Names
from worker.store.connection import connect
from worker.store.keys import digest
from worker.store.tables import Tables


@dataclass(frozen=True, slots=True)
class Rooms:
    """What a worker follows: so many channels, so many of them to a subscription."""

    channels: int
    each: int

    @property
    def names(self) -> list[str]:
        """The channels."""
        return [f"room-{number}" for number in range(self.channels)]

    @property
    def subscriptions(self) -> int:
        """How many polls a worker has open."""
        return -(-self.channels // self.each)

    @property
    def settings(self) -> dict[str, str]:
        """What makes a worker follow them."""
        return {
            "TALLY_CHANNELS": ",".join(self.names),
            "TALLY_CHANNELS_PER_SUBSCRIPTION": str(self.each),
        }


@asynccontextmanager
async def staged(server: RedisServer, folder: Path, seed: int) -> AsyncIterator[Stage]:
    """Yield an emulator and a folder for commands on this server; whatever was started on it has ended afterwards."""
    async with connect(server.url) as redis, Emulator(seed=seed, subscribe_key=KEY) as emulator:
        stage = Stage(emulator, redis, server.url, folder)
        try:
            yield stage
        finally:
            stage.end()


async def leave_off(redis: Redis, channels: Sequence[str], each: int, at: Cursor) -> None:
    """Leave Redis as a worker does that has read all there was until then: the next one goes on, and owes nothing."""
    tables = Tables(redis, KEYS)
    await tables.channels.add(channels)
    await tables.rounds.save(at.timetoken)
    for names in Names.of(channels).split(each):
        await tables.cursors.save(digest(names.all), at)
