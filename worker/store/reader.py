"""Reads tallies: what an application imports. It never writes."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar, cast
from urllib.parse import unquote

from redis.asyncio import Redis

from worker.domain.position import Timetoken
from worker.domain.tally import Counts
from worker.store.connection import connect
from worker.store.journal import START
from worker.store.keys import DEFAULT_NAMESPACE, Keys, read_action_field
from worker.store.redis_errors import redis_errors

MessageTimetoken = TypeVar("MessageTimetoken", str, int)


class TallyReader:
    """Reads the tallies of messages.

    >>> url = "redis://localhost:6379"
    >>> async with TallyReader.from_url(url) as reader:
    ...     await reader.get("room", "17600000001728660")
    {'reaction': {'👍': 3}}
    """

    def __init__(
        self,
        redis: Redis,
        namespace: str = DEFAULT_NAMESPACE,
        *,
        seconds: float | None = None,
    ) -> None:
        """No call takes longer than ``seconds``."""
        # redis-py types its commands for both of its clients at once.
        # Here a command is always awaited.
        self._redis = cast("Any", redis)
        self._keys = Keys(namespace)
        self._seconds = seconds

    @classmethod
    def from_url(cls, url: str, *, namespace: str = DEFAULT_NAMESPACE) -> Self:
        """Return a reader of ``redis://``, ``rediss://`` or ``unix://``.

        It answers within ten seconds.
        ``?socket_timeout=60`` in the address changes that.

        Raises:
            ConfigurationError: the address or the namespace is malformed.
        """
        redis = connect(url)
        # redis-py starts a timer for each answer: a third of a read's cost.
        # One timer for the whole call bounds its retries, too.
        options = redis.connection_pool.connection_kwargs
        seconds = options["socket_timeout"]
        options["socket_timeout"] = None
        return cls(redis, namespace, seconds=seconds)

    async def get(self, channel: str, message_timetoken: str | int) -> Counts:
        """Return type → value → count of one message, in one round trip.

        It is empty if the message has no reaction.

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
        """Return type → value → count of each message, in one round trip.

        The keys are the message timetokens as they were given.
        A message without a reaction has an empty mapping.

        Raises:
            RedisUnavailableError: Redis does not answer.
        """
        pipe = self._redis.pipeline(transaction=False)
        for message_timetoken in message_timetokens:
            pipe.hgetall(self._keys.counts(channel, _digits(message_timetoken)))
        with redis_errors():
            async with asyncio.timeout(self._seconds):
                hashes = await pipe.execute()
        return dict(zip(message_timetokens, map(read_counts, hashes), strict=True))

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _digits(message_timetoken: str | int) -> str:
    is_bool = isinstance(message_timetoken, bool)
    if is_bool or not isinstance(message_timetoken, str | int):
        raise TypeError(f"a message timetoken is text or a whole number, not {message_timetoken!r}")
    return str(message_timetoken)


def read_counts(fields: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """Return type → value → count of the fields of a ``counts`` hash."""
    counts: dict[str, dict[str, int]] = {}
    for field, count in fields.items():
        type, _, value = field.partition(":")
        if "%" in type:
            type = unquote(type)
        counts.setdefault(type, {})[value] = int(count)
    return counts


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One message, when the journal ended at ``head``."""

    head: str
    counts: Counts
    users: Mapping[str, Mapping[str, Mapping[str, Timetoken]]]
    """type → value → uuid → action timetoken."""


async def read_snapshot(
    redis: Redis,
    keys: Keys,
    channel: str,
    message: Timetoken,
) -> Snapshot:
    """Read a message in one transaction."""
    pipe = redis.pipeline(transaction=True)
    pipe.get(keys.head(channel))
    pipe.hgetall(keys.counts(channel, message))
    pipe.hgetall(keys.actions(channel, message))
    with redis_errors():
        head, counts, actions = await pipe.execute()
    users: dict[str, dict[str, dict[str, Timetoken]]] = {}
    for field, action_timetoken in actions.items():
        type, value, uuid = read_action_field(field)
        users.setdefault(type, {}).setdefault(value, {})[uuid] = action_timetoken
    return Snapshot(head or START, read_counts(counts), users)
