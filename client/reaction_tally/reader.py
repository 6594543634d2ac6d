"""Reads tallies in threads, as most web applications do."""

from collections.abc import Generator, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Self

from redis import Redis, RedisCluster

from reaction_tally.changes import AWAY_SECONDS
from reaction_tally.clients import GivenClient, OwnClient
from reaction_tally.connections import client_of, make_client, server_name
from reaction_tally.keys import DEFAULT_NAMESPACE
from reaction_tally.operations import Operations
from reaction_tally.reads import Reads
from reaction_tally.senders import Sender
from reaction_tally.values import Change, Counts, Page, RecentMessage, Reset, TopMessage, Who


class TallyReader:
    """Reads the tallies of messages. It never writes.

    One reader serves a whole process: any number of threads, and forks.

    >>> reader = TallyReader.from_url("redis://localhost:6379")
    >>> reader.page("room", ["17600000001728660"], me="ana").messages["17600000001728660"].total
    3

    Every read raises:

    - ``RedisUnavailableError``: Redis does not answer,
    - ``NotPermittedError``: an ACL refuses a command,
    - ``NotTheseTalliesError``: another server, database, namespace or schema. An empty answer is
      never a mistake in the address.
    """

    def __init__(
        self, redis: Redis | RedisCluster | Sender, namespace: str = DEFAULT_NAMESPACE
    ) -> None:
        """``redis`` may decode responses, or not. Who made it closes it."""
        if not isinstance(redis, Sender):
            client = client_of(redis, Redis, RedisCluster)
            redis = Sender(GivenClient(client), server_name(client))
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
        make, where = make_client(url)
        return cls(Sender(OwnClient(make), where), namespace)

    def page(
        self,
        channel: str,
        message_timetokens: Sequence[str | int],
        *,
        types: Sequence[str] | None = None,
        me: str | None = None,
        names: int = 0,
    ) -> Page:
        """Return the reactions to messages of a channel, at one instant, in one round trip.

        ``types`` are the types that are wanted. ``me`` is a user: which reactions are theirs?
        ``names`` is how many users of each reaction are named, oldest first. If one of the messages
        has more than 128 actions, they take a second round trip.
        """
        page = self.reads.page(channel, message_timetokens, types, me, names)
        return self._sender.run(page)

    def who(
        self,
        channel: str,
        message_timetoken: str | int,
        type: str,
        value: str,
        *,
        limit: int = 50,
        after: str | None = None,
    ) -> Who:
        """Return who chose a value on a message, oldest first: ``limit`` of them, 1,000 at most.

        For the next page, pass ``after`` of this one. It begins after the last user that you have,
        whoever reacted or went meanwhile.
        """
        who = self.reads.who(channel, message_timetoken, type, value, limit, after)
        return self._sender.run(who)

    def get(self, channel: str, message_timetoken: str | int) -> Counts:
        """Return type → value → count of one message; empty without a reaction."""
        return self._sender.run(self.reads.get(channel, message_timetoken))

    def get_many(
        self,
        channel: str,
        message_timetokens: Sequence[str | int],
    ) -> dict[str, Counts]:
        """Return type → value → count of each message, by its timetoken as text."""
        return self._sender.run(self.reads.get_many(channel, message_timetokens))

    def top(
        self,
        channel: str,
        *,
        type: str | None = None,
        value: str | None = None,
        since: str | int | datetime | None = None,
        limit: int = 10,
    ) -> tuple[TopMessage, ...]:
        """Return the messages with the most reactions, most first, then newest first.

        Counted is a ``type``, a ``value``, both, or everything. ``since`` is a timetoken or a
        ``datetime``: messages that were published before it are left out, even if they have new
        reactions.

        Each thousand messages take two round trips. Changes may come between them.
        """
        top = self.reads.top(channel, type, value, since, limit)
        return self._sender.run(top)

    def recent(self, channel: str, *, limit: int = 50) -> tuple[RecentMessage, ...]:
        """Return the messages whose reactions changed last, newest first."""
        return self._sender.run(self.reads.recent(channel, limit))

    def channels(self) -> frozenset[str]:
        """Return every channel that the worker has ever seen."""
        return self._sender.run(self.reads.channels())

    def in_doubt(self, channels: Sequence[str]) -> frozenset[str]:
        """Return those of the channels that may have missed events. The worker repairs them."""
        return self._sender.run(self.reads.in_doubt(channels))

    def heartbeat_age(self) -> float | None:
        """Return how many seconds ago a worker gave a sign of life. Over 45, or None: none runs."""
        return self._sender.run(self.reads.heartbeat_age())

    def changes(
        self,
        channels: Iterable[str] | None = None,
        *,
        since: Mapping[str, str] | None = None,
        away_seconds: float = AWAY_SECONDS,
    ) -> Generator[Change | Reset]:
        """Yield what changes in some channels, or in all of them; wait for it.

        ``since`` is channel → position, of a ``Page``, a ``Change`` or a ``Reset``. Others begin
        now; if all channels are wanted since some positions, others begin at their first change.

        After a failure it connects again, and loses nothing. ``close`` closes its connection.

        Raises:
            RedisUnavailableError: Redis does not answer at first, or for ``away_seconds``.
        """
        begin = self.reads.changes(channels, since, away_seconds)
        return self._sender.follow(begin, self.reads.keys.hints)

    def check(self) -> None:
        """Make sure that tallies are there: for a readiness probe, or the start of a process."""
        self._sender.run(self.reads.check())

    def close(self) -> None:
        """Close the connections of a reader that ``from_url`` made."""
        self._sender.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
