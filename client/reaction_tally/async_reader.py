"""Reads tallies in an event loop."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Self, TypeVar

from redis.asyncio import ConnectionPool, Redis
from redis.exceptions import RedisError

from reaction_tally.arguments import (
    channel_of,
    channels_of,
    followed_of,
    limit_of,
    positions_of,
    query_of,
    timetoken_of,
    timetokens_of,
)
from reaction_tally.changes import AWAY_SECONDS, begin
from reaction_tally.connections import place, pool
from reaction_tally.errors import RedisUnavailableError
from reaction_tally.hints import AsyncHints, followed_in_loop
from reaction_tally.keys import DEFAULT_NAMESPACE
from reaction_tally.loops import LoopClients, OneClient
from reaction_tally.operations import Operation, Operations, Request
from reaction_tally.pages import read_page
from reaction_tally.replies import UNREADABLE, translated, unreadable
from reaction_tally.values import Change, Counts, Page, RecentMessage, Reset

Result = TypeVar("Result")


class AsyncTallyReader:
    """Reads the tallies of messages. It never writes.

    One reader serves a whole process, from ``from_url`` also one event loop after another.
    The reads are those of ``TallyReader``, and raise the same errors.

    >>> reader = AsyncTallyReader.from_url("redis://localhost:6379")
    >>> page = await reader.page("room", ["17600000001728660"], me="ana")
    >>> page.messages["17600000001728660"].total
    3
    """

    def __init__(self, redis: Redis, namespace: str = DEFAULT_NAMESPACE) -> None:
        """``redis`` may decode responses, or not. Who made it closes it."""
        self._clients: LoopClients | OneClient = OneClient(redis)
        self._seconds: float | None = None
        self.operations = Operations(namespace, place(redis))

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        namespace: str = DEFAULT_NAMESPACE,
    ) -> Self:
        """Return a reader of ``redis://``, ``rediss://`` or ``unix://``.

        Raises:
            InvalidNameError: the address or the namespace is malformed.
        """
        options = pool(ConnectionPool, url).connection_kwargs

        def make() -> Redis:
            connections = pool(ConnectionPool, url)
            # redis-py starts a timer for each answer. One for the whole step is cheaper.
            connections.connection_kwargs["socket_timeout"] = None
            return Redis.from_pool(connections)

        reader = cls(make(), namespace)
        reader._clients = LoopClients(make)
        reader._seconds = options["socket_timeout"]
        return reader

    async def page(
        self,
        channel: str,
        message_timetokens: Sequence[str | int],
        *,
        types: Sequence[str] | None = None,
        me: str | None = None,
        names: int = 0,
    ) -> Page:
        """Return the reactions to messages of a channel: see ``TallyReader.page``."""
        query = query_of(channel, message_timetokens, types, me, names)
        return await self._run(read_page(self.operations, query))

    async def get(
        self,
        channel: str,
        message_timetoken: str | int,
    ) -> Counts:
        """Return type → value → count of one message; empty without a reaction."""
        timetoken = timetoken_of(message_timetoken)
        return await self._run(self.operations.get(channel_of(channel), timetoken))

    async def get_many(
        self,
        channel: str,
        message_timetokens: Sequence[str | int],
    ) -> dict[str, Counts]:
        """Return type → value → count of each message, by its timetoken as text."""
        timetokens = timetokens_of(message_timetokens)
        return await self._run(self.operations.get_many(channel_of(channel), timetokens))

    async def recent(
        self,
        channel: str,
        *,
        limit: int = 50,
    ) -> tuple[RecentMessage, ...]:
        """Return the messages whose reactions changed last, newest first."""
        return await self._run(self.operations.recent(channel_of(channel), limit_of(limit)))

    async def channels(self) -> frozenset[str]:
        """Return every channel that the worker has ever seen."""
        return await self._run(self.operations.channels())

    async def in_doubt(
        self,
        channels: Sequence[str],
    ) -> frozenset[str]:
        """Return those of the channels that may have missed events.

        The worker repairs them.
        """
        return await self._run(self.operations.in_doubt(channels_of(channels)))

    def changes(
        self,
        channels: Iterable[str] | None = None,
        *,
        since: Mapping[str, str] | None = None,
        away_seconds: float = AWAY_SECONDS,
    ) -> AsyncGenerator[Change | Reset]:
        """Yield what changes in some channels, or in all of them: see ``TallyReader.changes``.

        Now is when the first change is asked for.
        """
        start = begin(self.operations, followed_of(channels), positions_of(since), away_seconds)
        hints = AsyncHints(self._clients.get, self.operations.keys.hints, self._seconds)
        return followed_in_loop(partial(self._run, start), self._send, hints)

    async def check(self) -> None:
        """Make sure that tallies are there.

        For a readiness probe, or the start of a process.
        """
        await self._run(self.operations.check())

    async def close(self) -> None:
        """Close the connections of the running loop, if ``from_url`` made the reader."""
        await self._clients.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _run(self, operation: Operation[Result]) -> Result:
        """Run an operation to its result."""
        try:
            request = next(operation)
            while True:
                replies = await self._send(request)
                request = operation.send(replies)
        except StopIteration as end:
            result: Result = end.value
            return result
        except UNREADABLE as error:
            raise unreadable(error) from error

    async def _send(self, request: Request) -> Sequence[Any]:
        """Send commands; the time of the address begins when a connection is free."""
        async with self._clients.borrow() as redis:
            pipe = redis.pipeline(transaction=request.is_atomic)
            try:
                async with asyncio.timeout(self._seconds):
                    for command in request.commands:
                        pipe.execute_command(*command)
                    replies: Sequence[Any] = await pipe.execute(raise_on_error=False)
            except TimeoutError as error:
                reason = f"Redis does not answer within {self._seconds} s."
                raise RedisUnavailableError(reason) from error
            except (RedisError, OSError) as error:
                raise translated(error) from error
        return replies
