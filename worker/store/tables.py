"""What a worker remembers of its own in Redis, table by table."""

from dataclasses import dataclass
from typing import Any, Self, cast

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from worker.domain.position import Timetoken
from worker.store.cursors import Cursors
from worker.store.dead_letters import DeadLetters
from worker.store.keys import Keys
from worker.store.known_channels import KnownChannels
from worker.store.pending_repairs import PendingRepairs
from worker.store.progress import SavedProgress
from worker.store.redis_retry import RedisRetry, retried


class LastRound:
    """When the newest complete round began: the key ``round``."""

    def __init__(self, redis: Redis, keys: Keys, retry: RedisRetry | None = None) -> None:
        self._redis = cast("Any", redis)
        self._keys = keys
        self.retry = retry

    @retried
    async def read(self) -> Timetoken | None:
        """Return when it began; None if no round was ever complete."""
        began = await self._redis.get(self._keys.round)
        return str(began) if began else None

    @retried
    async def save(self, began: Timetoken) -> None:
        """Write down that a round is complete that began then, and every one before it."""
        await self._redis.set(self._keys.round, began)


class RedisServer:
    """The server itself."""

    def __init__(self, redis: Redis, retry: RedisRetry | None = None) -> None:
        self._redis = cast("Any", redis)
        self.retry = retry

    @retried
    async def now(self) -> int:
        """Return milliseconds since 1970, by the clock of Redis."""
        seconds, microseconds = await self._redis.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    @retried
    async def run_id(self) -> str | None:
        """Return what identifies this run of the server; None if the ACL hides it."""
        try:
            info = await self._redis.info("server")
        except NoPermissionError:
            return None
        identifier = info.get("run_id")
        return str(identifier) if identifier else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """Every table. With a ``retry`` their methods wait while Redis is away; without one they raise.

    Raises:
        RedisUnavailableError: (every method without a ``retry``) Redis is away; try again.
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
            server=RedisServer(redis, retry),
        )
