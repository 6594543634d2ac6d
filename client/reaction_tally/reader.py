"""Reads tallies in threads, as most web applications do."""

from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, Self, TypeVar

from redis import BlockingConnectionPool, Redis
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
from reaction_tally.hints import Hints, followed
from reaction_tally.keys import DEFAULT_NAMESPACE
from reaction_tally.operations import Operation, Operations, Request
from reaction_tally.pages import read_page
from reaction_tally.replies import UNREADABLE, translated, unreadable
from reaction_tally.values import Change, Counts, Page, RecentMessage, Reset

Result = TypeVar("Result")


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

    def __init__(self, redis: Redis, namespace: str = DEFAULT_NAMESPACE) -> None:
        """``redis`` may decode responses, or not. Who made it closes it."""
        self._redis: Any = redis
        self._is_own = False
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
        reader = cls(Redis.from_pool(pool(BlockingConnectionPool, url)), namespace)
        reader._is_own = True
        return reader

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
        ``names`` is how many users of each reaction are named, oldest first.
        """
        query = query_of(channel, message_timetokens, types, me, names)
        return self._run(read_page(self.operations, query))

    def get(
        self,
        channel: str,
        message_timetoken: str | int,
    ) -> Counts:
        """Return type → value → count of one message; empty without a reaction."""
        timetoken = timetoken_of(message_timetoken)
        return self._run(self.operations.get(channel_of(channel), timetoken))

    def get_many(
        self,
        channel: str,
        message_timetokens: Sequence[str | int],
    ) -> dict[str, Counts]:
        """Return type → value → count of each message, by its timetoken as text."""
        timetokens = timetokens_of(message_timetokens)
        return self._run(self.operations.get_many(channel_of(channel), timetokens))

    def recent(
        self,
        channel: str,
        *,
        limit: int = 50,
    ) -> tuple[RecentMessage, ...]:
        """Return the messages whose reactions changed last, newest first."""
        return self._run(self.operations.recent(channel_of(channel), limit_of(limit)))

    def channels(self) -> frozenset[str]:
        """Return every channel that the worker has ever seen."""
        return self._run(self.operations.channels())

    def in_doubt(
        self,
        channels: Sequence[str],
    ) -> frozenset[str]:
        """Return those of the channels that may have missed events.

        The worker repairs them.
        """
        return self._run(self.operations.in_doubt(channels_of(channels)))

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
        start = begin(self.operations, followed_of(channels), positions_of(since), away_seconds)
        hints = Hints(self._redis, self.operations.keys.hints)
        return followed(self._run(start), self._send, hints)

    def check(self) -> None:
        """Make sure that tallies are there.

        For a readiness probe, or the start of a process.
        """
        self._run(self.operations.check())

    def close(self) -> None:
        """Close the connections of a reader that ``from_url`` made."""
        if self._is_own:
            self._redis.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, operation: Operation[Result]) -> Result:
        """Run an operation to its result."""
        try:
            request = next(operation)
            while True:
                request = operation.send(self._send(request))
        except StopIteration as end:
            result: Result = end.value
            return result
        except UNREADABLE as error:
            raise unreadable(error) from error

    def _send(self, request: Request) -> Sequence[Any]:
        pipe = self._redis.pipeline(transaction=request.is_atomic)
        try:
            for command in request.commands:
                pipe.execute_command(*command)
            replies: Sequence[Any] = pipe.execute(raise_on_error=False)
        except (RedisError, OSError) as error:
            raise translated(error) from error
        return replies
