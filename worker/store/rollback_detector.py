"""Is Redis still what it was? A failover or a restored copy takes it back to a state this process knows to be past."""

from typing import Final

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

NOTHING: Final = "0-0"
"""The head of a journal that has never had an entry."""


class ReplacedError(RedisError):
    """Another server answers than the one this process knew. No network failure: redis-py must not retry it."""


class RollbackDetector:
    """What this process has seen of Redis, so that an older state shows.

    ``generation`` counts how often it went back. From the moment it is noticed until ``accept``, Redis ``is_suspect``.
    """

    def __init__(self) -> None:
        self.generation = 0
        self.is_suspect = False
        self._server: str | None = None
        self._heads: dict[str, str] = {}
        self._channels: set[str] = set()

    @property
    def channels(self) -> frozenset[str]:
        """The channels this process has written to."""
        return frozenset(self._channels)

    async def greet(self, connection: AbstractConnection) -> None:
        """Begin a connection; refuse it if it leads to another server than before (redis-py's ``redis_connect_func``).

        Raises:
            ReplacedError: it does; nothing may be written there before every channel's debt is marked.
        """
        await connection.on_connect()
        server = await server_of(connection)
        if self._server is None:
            self._server = server
        elif server and server != self._server:
            self.suspect("another server answers")
            raise ReplacedError("another Redis server answers than before")

    def head(self, channel: str) -> str:
        """Return the newest head of the channel's journal this process has seen."""
        return self._heads.get(channel, NOTHING)

    def follow(self, channel: str, known: str, before: str, after: str) -> bool:
        """Take note of what an apply answered; tell whether Redis still held what was ``known`` when it was sent."""
        if _order(before) < _order(known):
            self.suspect(f"the journal of {channel!r} went back from {known} to {before}")
            return False
        self._channels.add(channel)
        if _order(after) > _order(self.head(channel)):
            self._heads[channel] = after
        return True

    def suspect(self, reason: str) -> None:
        """Say that Redis holds an older state."""
        if not self.is_suspect:
            import structlog  # noqa: PLC0415 - a fifth of what it takes to import a reader, and this is rare

            structlog.get_logger(__name__).error("redis_went_back", reason=reason)
        self.is_suspect = True

    def accept(self, server: str | None) -> None:
        """Go on with Redis as it is, on this server; what was seen of the state before counts no longer."""
        self._server = server
        self._heads.clear()
        self.generation += 1
        self.is_suspect = False


async def server_of(connection: AbstractConnection) -> str | None:
    """Return what identifies a server's run; None where it does not tell (a proxy, an ACL)."""
    await connection.send_command("INFO", "server")
    try:
        told = await connection.read_response()
    except ResponseError:
        return None
    return run_id(told if isinstance(told, str) else bytes(told).decode(errors="replace"))


def run_id(info: str) -> str | None:
    """Return the ``run_id`` in the text of INFO."""
    lines = (line.partition(":") for line in info.splitlines())
    return next((value.strip() for name, _, value in lines if name == "run_id"), None)


def _order(stream_id: str) -> tuple[int, int]:
    milliseconds, _, sequence = stream_id.partition("-")
    return int(milliseconds), int(sequence or 0)
