"""Tallies in memory, on fakeredis: no server, no process."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from types import ModuleType
from typing import Any, Final

from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from reaction_tally.arguments import users_of
from reaction_tally.async_reader import AsyncTallyReader
from reaction_tally.connections import server_name
from reaction_tally.keys import DEFAULT_NAMESPACE
from reaction_tally.loops import LoopClients
from reaction_tally.reader import TallyReader
from reaction_tally.senders import AsyncSender
from reaction_tally.testing.action import Action
from reaction_tally.testing.errors import NotInstalledError, ReactionRefusedError
from reaction_tally.testing.writer import TallyWriter

NANOSECONDS_PER_TICK: Final = 100

GivenTallies = Mapping[
    tuple[str, Any],  # Any, because mappings of texts, of numbers and of both are accepted
    Mapping[str, Mapping[str, Sequence[str]]],
]
"""Channel and message timetoken → type → value → users, the first one first."""


@contextmanager
def fake_tallies(
    given: GivenTallies | None = None,
    *,
    namespace: str = DEFAULT_NAMESPACE,
) -> Iterator["FakeTallies"]:
    """Yield tallies in memory, and readers of them.

    >>> given = {("room", "17600000001728660"): {"reaction": {"👍": ["ana", "ben"]}}}
    >>> with fake_tallies(given) as tallies:
    ...     tallies.react("room", "17600000001728660", "🎉", "ana")

    Raises:
        NotInstalledError: fakeredis is missing.
    """
    tallies = FakeTallies(namespace)
    for (channel, message), types in (given or {}).items():
        for type, values in types.items():
            tallies.react_all(channel, message, values, type)
    try:
        yield tallies
    finally:
        tallies.close()


class FakeTallies:
    """Tallies in memory. Any number of threads and event loops may read and write them.

    ``reader`` and ``async_reader`` are real readers.
    """

    def __init__(self, namespace: str = DEFAULT_NAMESPACE) -> None:
        fake = _fakeredis()
        self._server = fake.FakeServer()
        self._redis = fake.FakeRedis(
            server=self._server,
            decode_responses=True,
            retry=Retry(NoBackoff(), 0),
        )
        self._writer = TallyWriter(self._redis, namespace)
        self._writer.claim()
        self._lock = Lock()
        self._newest = 0
        self.reader = TallyReader(self._redis, namespace)
        sender = AsyncSender(LoopClients(self._async_client), server_name(self._redis))
        self.async_reader = AsyncTallyReader(sender, namespace)

    def react(
        self,
        channel: str,
        message_timetoken: str | int,
        value: str,
        user: str,
        type: str = "reaction",
    ) -> str:
        """Add a user's reaction. Return its action timetoken.

        Raises:
            ReactionRefusedError: the user has reacted so already.
        """
        action = Action.of(channel, message_timetoken, value, user, type)
        with self._lock:
            if self._writer.live(action):
                raise ReactionRefusedError(f"There is already {action}.")
            timetoken = self._now()
            self._writer.add(action, timetoken)
        return timetoken

    def react_all(
        self,
        channel: str,
        message_timetoken: str | int,
        values: Mapping[str, Sequence[str]],
        type: str = "reaction",
    ) -> None:
        """Add reactions: value → users, the first one first."""
        for value, users in values.items():
            for user in users_of(users):
                self.react(channel, message_timetoken, value, user, type)

    def remove(
        self,
        channel: str,
        message_timetoken: str | int,
        value: str,
        user: str,
        type: str = "reaction",
    ) -> None:
        """Remove a user's reaction.

        Raises:
            ReactionRefusedError: there is none.
        """
        action = Action.of(channel, message_timetoken, value, user, type)
        with self._lock:
            timetoken = self._writer.live(action)
            if not timetoken:
                raise ReactionRefusedError(f"There is no {action}.")
            self._writer.remove(action, timetoken, self._now())

    def set_in_doubt(
        self,
        channel: str,
        is_in_doubt: bool = True,
    ) -> None:
        """Let a channel be in doubt, as after an overflow, or no longer."""
        self._writer.set_in_doubt(channel, is_in_doubt)

    def set_heartbeat_age(self, seconds: float | None) -> None:
        """Let a worker's last sign of life be so long ago; None: there was none for a day.

        At first it is the moment in which these tallies were made.
        """
        self._writer.set_heartbeat_age(seconds)

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Let every read raise ``RedisUnavailableError`` while the block runs."""
        self._server.connected = False
        try:
            yield
        finally:
            self._server.connected = True

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def _async_client(self) -> Any:
        return _fakeredis().FakeAsyncRedis(
            server=self._server,
            retry=AsyncRetry(NoBackoff(), 0),
        )

    def _now(self) -> str:
        """Return a timetoken of now, newer than all before."""
        now = time.time_ns() // NANOSECONDS_PER_TICK
        self._newest = max(self._newest + 1, now)
        return str(self._newest)


def _fakeredis() -> ModuleType:
    try:
        import fakeredis  # noqa: PLC0415 - who only starts the service does not need it
    except ImportError:
        raise NotInstalledError(
            "fake_tallies needs fakeredis, which the extra testing brings. "
            "In a checkout: pip install './client[testing]'"
        ) from None
    return fakeredis
