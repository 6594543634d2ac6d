"""Reading tallies: what an application imports. It never writes."""

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, cast
from urllib.parse import unquote

from redis.asyncio import Redis

from worker.domain.tally import Counts
from worker.store.connection import connect, redis_errors
from worker.store.keys import DEFAULT_NAMESPACE, Keys

MessageTimetoken = TypeVar("MessageTimetoken", str, int)


class TallyReader:
    """Reads the tallies of messages; asynchronous.

    >>> async with TallyReader.from_url("redis://localhost:6379") as reader:
    ...     await reader.get("room", "17600000001728660")
    {'reaction': {'👍': 3}}
    """

    def __init__(
        self, redis: Redis, namespace: str = DEFAULT_NAMESPACE, *, seconds: float | None = None
    ) -> None:
        """``seconds`` bounds every call as a whole; None: nothing but the client's own limits does."""
        # redis-py types its commands for both its clients at once; here they are always awaited.
        self._redis = cast("Any", redis)
        self._keys = Keys(namespace)
        self._seconds = seconds

    @classmethod
    def from_url(cls, url: str, *, namespace: str = DEFAULT_NAMESPACE) -> Self:
        """Return a reader of the tallies at ``redis://``, ``rediss://`` or ``unix://``; it answers within ten seconds.

        Raises:
            ConfigurationError: the address or the namespace is malformed.
        """
        redis = connect(url)
        # A timer for each answer costs a third of a read; one for all of them bounds a call better, retries and all.
        options = redis.connection_pool.connection_kwargs
        seconds, options["socket_timeout"] = options["socket_timeout"], None
        return cls(redis, namespace, seconds=seconds)

    async def get(self, channel: str, message_timetoken: str | int) -> Counts:
        """Return type → value → count of one message; empty if nobody reacted to it. One round trip.

        Raises:
            RedisUnavailableError: Redis does not answer.
        """
        key = self._keys.counts(channel, _digits(message_timetoken))
        with redis_errors():
            async with asyncio.timeout(self._seconds):
                fields = await self._redis.hgetall(key)
        return read_counts(fields)

    async def get_many(
        self, channel: str, message_timetokens: Sequence[MessageTimetoken]
    ) -> dict[MessageTimetoken, Counts]:
        """Return message timetoken (as it was given) → type → value → count, in one round trip.

        Every message asked for is in the answer; one that nobody reacted to has an empty mapping.

        Raises:
            RedisUnavailableError: Redis does not answer.
        """
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            for message_timetoken in message_timetokens:
                pipe.hgetall(self._keys.counts(channel, _digits(message_timetoken)))
            async with asyncio.timeout(self._seconds):
                hashes = await pipe.execute()
        return {
            message_timetoken: read_counts(fields)
            for message_timetoken, fields in zip(message_timetokens, hashes, strict=True)
        }

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


def _digits(message_timetoken: str | int) -> str:
    if isinstance(message_timetoken, bool) or not isinstance(message_timetoken, str | int):
        raise TypeError(f"a message timetoken is text or a whole number, not {message_timetoken!r}")
    return str(message_timetoken)


def read_counts(fields: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """Return type → value → count of the fields of a ``counts`` hash."""
    counts: dict[str, dict[str, int]] = {}
    for field, count in fields.items():
        # As read_tally_field splits it, which to call here would cost a third of the whole.
        type, _, value = field.partition(":")
        if "%" in type:
            type = unquote(type)
        if type in counts:
            counts[type][value] = int(count)
        else:
            counts[type] = {value: int(count)}
    return counts
