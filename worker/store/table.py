"""A table: one part of the data in Redis."""

from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from functools import wraps
from typing import Any, Final, TypeVar, cast

from redis.asyncio import Redis

from reaction_tally.keys import Keys
from worker.store.batch import batched
from worker.store.damage import is_wrong_type
from worker.store.redis_errors import redis_errors
from worker.store.redis_retry import RedisRetry
from worker.store.rollback_detector import RollbackDetector
from worker.store.scripts import call_script

HASH_BATCH: Final = 500
"""Hashes of one round trip: an apply may run between two."""

Hashes = dict[str, Mapping[str, str]]
"""Channel → the fields of its hash."""
KeyOf = Callable[[str], str]
"""Returns a channel's key."""
Method = TypeVar("Method", bound=Callable[..., Coroutine[Any, Any, Any]])


class Table:
    """Base of the classes that read and write Redis.

    ``@retried`` methods wait while Redis is away.
    Without a ``retry`` they raise ``RedisUnavailableError``.
    """

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        retry: RedisRetry | None = None,
        replicas: int = 0,
    ) -> None:
        """So many ``replicas`` must have what a method writes, if it waits for them."""
        # redis-py types its commands for both of its clients at once.
        # Here a command is always awaited.
        self._redis = cast("Any", redis)
        self._keys = keys
        self.retry = retry
        self._replicas = replicas
        self._detector = retry.rollback_detector if retry else RollbackDetector()
        self._acknowledged = self._detector.acknowledged

    async def _call(self, verb: str, key: str, *args: str | float) -> Any:
        call = ([key], args)
        (answer,) = await call_script(self._redis, verb, call)
        return answer

    async def _each(
        self,
        command: str,
        keys: Iterable[str],
        *args: str | float,
        raises: bool = True,
    ) -> list[Any]:
        """Return a command's answer about each key, in one round trip.

        The key comes before ``args``. Unless it ``raises``, a refusal is an answer.
        """
        pipe = self._redis.pipeline(transaction=False)
        for key in keys:
            getattr(pipe, command)(key, *args)
        with redis_errors():
            return list(await pipe.execute(raise_on_error=raises))

    async def _read_hashes(
        self,
        channels: Collection[str],
        key: KeyOf,
        damaged: Mapping[str, str],
    ) -> Hashes:
        """Return the hash of each channel that has one; few have.

        ``damaged`` stands for what another program wrote in place of a hash.
        """
        hashes: Hashes = {}
        for batch in batched(sorted(channels), HASH_BATCH):
            keys = list(map(key, batch))
            if not await self._redis.exists(*keys):
                continue
            answers = await self._each("hgetall", keys, raises=False)
            for channel, answer in zip(batch, answers, strict=True):
                fields = damaged if is_wrong_type(answer) else answer
                if isinstance(fields, Exception):
                    raise fields
                if fields:
                    hashes[channel] = fields
        return hashes


def retried(method: Method) -> Method:
    """Let a table's method wait while Redis is away."""

    @wraps(method)
    async def call(table: Table, /, *args: Any, **kwargs: Any) -> Any:
        async def once() -> Any:
            with redis_errors():
                return await method(table, *args, **kwargs)

        if table.retry is None:
            return await once()
        return await table.retry.call(once)

    return cast("Method", call)
