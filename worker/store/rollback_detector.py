"""Notices that Redis went back: a failover, a restored copy."""

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from worker.store.journal import START
from worker.store.redis_errors import ServerReplacedError


class RollbackDetector:
    """What this process has seen of Redis."""

    def __init__(self) -> None:
        self.generation = 0
        """How often Redis was accepted."""
        self.is_suspect = False
        """From the first sign until ``accept``."""
        self._server: str | None = None
        self._heads: dict[str, str] = {}
        self.channels: set[str] = set()
        """The channels this process has written to."""

    async def check_server(self, connection: AbstractConnection) -> None:
        """Begin a connection: redis-py's ``redis_connect_func``.

        Raises:
            ServerReplacedError: another server answers than before.
                Every channel must be marked before anything is written.
        """
        await connection.on_connect()
        server = await _server_of(connection)
        if self._server is None:
            self._server = server
        elif server and server != self._server:
            self.suspect("another server answers")
            raise ServerReplacedError("another Redis server answers than before")

    def newest_head(self, channel: str) -> str:
        """Return the newest journal head that was seen."""
        return self._heads.get(channel, START)

    def observe(self, channel: str, known: str, before: str, after: str) -> bool:
        """Note the journal heads that an apply answered.

        ``known`` was the newest head when it was sent.
        Returns False if Redis no longer held that head.
        """
        if _order(before) < _order(known):
            self.suspect(f"the journal of {channel!r} went back from {known} to {before}")
            return False
        self.channels.add(channel)
        if _order(after) > _order(self.newest_head(channel)):
            self._heads[channel] = after
        return True

    def suspect(self, reason: str) -> None:
        """Note a sign that Redis holds an older state."""
        if not self.is_suspect:
            # Importing structlog takes a fifth of the time
            # in which a reader is imported. This is rare.
            import structlog  # noqa: PLC0415

            log = structlog.get_logger(__name__)
            log.error("redis_went_back", reason=reason)
        self.is_suspect = True

    def accept(self, server: str | None) -> None:
        """Trust this server as it is; forget the heads seen before."""
        self._server = server
        self._heads.clear()
        self.generation += 1
        self.is_suspect = False


async def _server_of(connection: AbstractConnection) -> str | None:
    await connection.send_command("INFO", "server")
    try:
        info = await connection.read_response()
    except ResponseError:
        return None
    if not isinstance(info, str):
        info = bytes(info).decode(errors="replace")
    return read_run_id(info)


def read_run_id(info: str) -> str | None:
    """Return the ``run_id`` in the text of INFO."""
    for line in info.splitlines():
        name, _, value = line.partition(":")
        if name == "run_id":
            return value.strip()
    return None


def _order(stream_id: str) -> tuple[int, int]:
    milliseconds, _, sequence = stream_id.partition("-")
    return int(milliseconds), int(sequence or 0)
