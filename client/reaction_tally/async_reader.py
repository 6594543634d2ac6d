"""Reads tallies in an event loop."""

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Self

from redis.asyncio import Redis, RedisCluster

from reaction_tally.changes import AWAY_SECONDS
from reaction_tally.connections import client_of, make_async_client, server_name
from reaction_tally.keys import DEFAULT_NAMESPACE
from reaction_tally.loops import AsyncGivenClient, LoopClients
from reaction_tally.operations import Operations
from reaction_tally.reads import Reads
from reaction_tally.senders import AsyncSender
from reaction_tally.values import Change, Counts, Page, RecentMessage, Reset, TopMessage, Who


class AsyncTallyReader:
    """Reads the tallies of messages. It never writes.

    One reader serves a whole process, from ``from_url`` also one event loop after another.
    The reads are those of ``TallyReader``, and raise the same errors.

    >>> reader = AsyncTallyReader.from_url("redis://localhost:6379")
    >>> page = await reader.page("room", ["17600000001728660"], me="ana")
    >>> page.messages["17600000001728660"].total
    3
    """

    def __init__(
        self, redis: Redis | RedisCluster | AsyncSender, namespace: str = DEFAULT_NAMESPACE
    ) -> None:
        """``redis`` may decode responses, or not. Who made it closes it."""
        if not isinstance(redis, AsyncSender):
            client = client_of(redis, Redis, RedisCluster)
            redis = AsyncSender(AsyncGivenClient(client), server_name(client))
        self._sender = redis
        self.reads = Reads(Operations(namespace, self._sender.where))

    @classmethod
    def from_url(cls, url: str, *, namespace: str = DEFAULT_NAMESPACE) -> Self:
        """Return a reader of ``redis://``, ``rediss://`` or ``unix://``.

        ``redis+cluster://host:port,host:port`` is the address of a Redis Cluster, and
        ``redis+sentinel://host:port,host:port/service/0`` one of Sentinels; also ``rediss+…``.

        Raises:
            InvalidNameError: the address or the namespace is malformed.
        """
        return cls(_sender_to(url), namespace)

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
        page = self.reads.page(channel, message_timetokens, types, me, names)
        return await self._sender.run(page)

    async def who(
        self,
        channel: str,
        message_timetoken: str | int,
        type: str,
        value: str,
        *,
        limit: int = 50,
        after: str | None = None,
    ) -> Who:
        """Return who chose a value on a message, oldest first: see ``TallyReader.who``."""
        who = self.reads.who(channel, message_timetoken, type, value, limit, after)
        return await self._sender.run(who)

    async def get(self, channel: str, message_timetoken: str | int) -> Counts:
        """Return type → value → count of one message; empty without a reaction."""
        return await self._sender.run(self.reads.get(channel, message_timetoken))

    async def get_many(
        self,
        channel: str,
        message_timetokens: Sequence[str | int],
    ) -> dict[str, Counts]:
        """Return type → value → count of each message, by its timetoken as text."""
        return await self._sender.run(self.reads.get_many(channel, message_timetokens))

    async def top(
        self,
        channel: str,
        *,
        type: str | None = None,
        value: str | None = None,
        since: str | int | datetime | None = None,
        limit: int = 10,
    ) -> tuple[TopMessage, ...]:
        """Return the messages with the most reactions: see ``TallyReader.top``."""
        top = self.reads.top(channel, type, value, since, limit)
        return await self._sender.run(top)

    async def recent(self, channel: str, *, limit: int = 50) -> tuple[RecentMessage, ...]:
        """Return the messages whose reactions changed last, newest first."""
        return await self._sender.run(self.reads.recent(channel, limit))

    async def channels(self) -> frozenset[str]:
        """Return every channel that the worker has ever seen."""
        return await self._sender.run(self.reads.channels())

    async def in_doubt(self, channels: Sequence[str]) -> frozenset[str]:
        """Return those of the channels that may have missed events.

        The worker repairs them.
        """
        return await self._sender.run(self.reads.in_doubt(channels))

    async def heartbeat_age(self) -> float | None:
        """Return how many seconds ago a worker gave a sign of life. Over 45, or None: none runs."""
        return await self._sender.run(self.reads.heartbeat_age())

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
        begin = self.reads.changes(channels, since, away_seconds)
        return self._sender.follow(begin, self.reads.keys.hints)

    async def check(self) -> None:
        """Make sure that tallies are there.

        For a readiness probe, or the start of a process.
        """
        await self._sender.run(self.reads.check())

    async def close(self) -> None:
        """Close the connections of the running loop, if ``from_url`` made the reader."""
        await self._sender.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _sender_to(url: str) -> AsyncSender:
    """Return a sender with a client for each event loop."""
    # redis-py starts a timer for each answer. One for the whole step is cheaper.
    make, where, seconds = make_async_client(url, socket_timeout=None)
    return AsyncSender(LoopClients(make), where, seconds)
