"""A table: one part of the data in Redis."""

from collections.abc import Callable, Collection, Coroutine, Mapping
from functools import wraps
from typing import Any, Final, TypeVar, cast

from redis.asyncio import Redis

from worker.store.acknowledged import Acknowledged
from worker.store.batch import batched
from worker.store.damage import is_wrong_type
from worker.store.keys import Keys
from worker.store.redis_errors import redis_errors
from worker.store.redis_retry import RedisRetry
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
    ) -> None:
        # redis-py types its commands for both of its clients at once.
        # Here a command is always awaited.
        self._redis = cast("Any", redis)
        self._keys = keys
        self.retry = retry
        self._acknowledged = retry.rollback_detector.acknowledged if retry else Acknowledged()

    async def _call(self, verb: str, key: str, *args: str | float) -> Any:
        call = ([key], args)
        (answer,) = await call_script(self._redis, verb, call)
        return answer

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
            pipe = self._redis.pipeline(transaction=False)
            for name in keys:
                pipe.hgetall(name)
            answers = await pipe.execute(raise_on_error=False)
            fields = [_fields(answer, damaged) for answer in answers]
            hashes |= zip(batch, fields, strict=True)
        return {channel: fields for channel, fields in hashes.items() if fields}


def _fields(answer: Any, damaged: Mapping[str, str]) -> Mapping[str, str]:
    if is_wrong_type(answer):
        return damaged
    if isinstance(answer, Exception):
        raise answer
    fields: Mapping[str, str] = answer
    return fields


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
