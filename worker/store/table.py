"""A table: one part of the data in Redis."""

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from redis.asyncio import Redis

from worker.store.keys import Keys
from worker.store.redis_errors import redis_errors
from worker.store.redis_retry import RedisRetry

Result = TypeVar("Result")
Parameters = ParamSpec("Parameters")


class Table:
    """Base of the classes that read and write the keys of one namespace.

    With a ``retry``, the ``@retried`` methods wait while Redis is away.
    Without one they raise.
    """

    def __init__(self, redis: Redis, keys: Keys, retry: RedisRetry | None = None) -> None:
        # redis-py types its commands for both of its clients at once.
        # Here a command is always awaited.
        self._redis = cast("Any", redis)
        self._keys = keys
        self.retry = retry


Owner = TypeVar("Owner", bound=Table)


def retried(
    method: Callable[Concatenate[Owner, Parameters], Coroutine[Any, Any, Result]],
) -> Callable[Concatenate[Owner, Parameters], Coroutine[Any, Any, Result]]:
    """Let a table's method raise errors of this program, and repeat itself.

    Raises:
        RedisUnavailableError: Redis is away, and the table has no ``retry``.
        ScriptRefusedError: Redis will always refuse these arguments.
    """

    @wraps(method)
    async def call(
        owner: Owner,
        /,
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Result:
        async def once() -> Result:
            with redis_errors():
                return await method(owner, *args, **kwargs)

        if owner.retry is None:
            return await once()
        return await owner.retry.call(once)

    return call
