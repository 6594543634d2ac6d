"""What a worker remembers of its own in Redis, table by table."""

from dataclasses import dataclass
from typing import Self

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from worker.domain.position import Timetoken
from worker.store.cursors import Cursors
from worker.store.dead_letters import DeadLetters
from worker.store.keys import Keys
from worker.store.known_channels import KnownChannels
from worker.store.pending_repairs import PendingRepairs
from worker.store.progress import SavedProgress
from worker.store.redis_retry import RedisRetry
from worker.store.table import Table, retried


class LastRound(Table):
    """When the newest complete round began: the key ``round``."""

    @retried
    async def read(self) -> Timetoken | None:
        """Return when it began; None if no round was ever complete."""
        began = await self._redis.get(self._keys.round)
        return str(began) if began else None

    @retried
    async def save(self, began: Timetoken) -> None:
        """Save that the round that began then is complete."""
        await self._redis.set(self._keys.round, began)


class RedisServer(Table):
    """The server itself."""

    @retried
    async def now(self) -> int:
        """Return milliseconds since 1970, by the clock of Redis."""
        seconds, microseconds = await self._redis.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    @retried
    async def run_id(self) -> str | None:
        """Return the id of this run of the server; None if the ACL hides it."""
        try:
            info = await self._redis.info("server")
        except NoPermissionError:
            return None
        identifier = info.get("run_id")
        return str(identifier) if identifier else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """Every table of a worker.

    With a ``retry`` their methods wait while Redis is away.
    Without one they raise ``RedisUnavailableError``.
    """

    cursors: Cursors
    pending: PendingRepairs
    progress: SavedProgress
    channels: KnownChannels
    rounds: LastRound
    dead_letters: DeadLetters
    server: RedisServer

    @classmethod
    def on(cls, redis: Redis, keys: Keys, retry: RedisRetry | None = None) -> Self:
        """Return the tables of this namespace."""
        return cls(
            cursors=Cursors(redis, keys, retry),
            pending=PendingRepairs(redis, keys, retry),
            progress=SavedProgress(redis, keys, retry),
            channels=KnownChannels(redis, keys, retry),
            rounds=LastRound(redis, keys, retry),
            dead_letters=DeadLetters(redis, keys, retry),
            server=RedisServer(redis, keys, retry),
        )
