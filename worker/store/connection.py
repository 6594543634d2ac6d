"""Clients of Redis."""

import asyncio
import encodings.idna  # noqa: F401 - Python loads it at the first name, when no file may be left
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import filterfalse
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import hiredis
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from worker.certificates import check_redis_options
from worker.errors import ConfigurationError
from worker.store.address import UNREADABLE, check_address
from worker.store.rollback_detector import RollbackDetector

RedisClient = Redis
"""A client, for parts that hand it to the store."""

EMBEDDED_FOLDER: Final = Path(".tally")
SOCKET_TIMEOUT_SECONDS: Final = 10.0
CLOSE_SECONDS: Final = 0.5
"""For so long a connection waits for the server's end of TLS."""
HEALTH_CHECK_SECONDS: Final = 30
_BAD_OPTIONS: Final = (
    ValueError,
    TypeError,
    AttributeError,
    RedisError,
)
"""What redis-py raises for an option that it does not take."""
MAX_CONNECTIONS: Final = 1_000
"""Twice as many as polls run at once.

Each answer may need one.
"""


def connect(url: str, rollback_detector: RollbackDetector | None = None) -> Redis:
    """Return a client for ``redis://``, ``rediss://`` or ``unix://``.

    With a detector it refuses another server than the one before,
    until the detector accepts that server.

    Raises:
        ConfigurationError: the address is malformed, or of another kind.
    """
    try:
        check_address(url)
    except ValueError:
        # The text of this error may quote a password, so it is left out.
        raise ConfigurationError(UNREADABLE) from None
    try:
        return _client(url, rollback_detector)
    except _BAD_OPTIONS:
        raise _refused_options(url) from None


def _refused_options(url: str) -> ConfigurationError:
    """Return an error that names an option which cannot be used. No value is quoted."""
    options = parse_qsl(urlsplit(url).query)
    takes = partial(_takes, urlsplit(url).scheme)
    refused = next(filterfalse(takes, options), None)
    if refused is None:
        return ConfigurationError(UNREADABLE)
    name, _ = refused
    return ConfigurationError(
        f"REDIS_URL has an option that cannot be used: {name}. "
        "Options have the names and values that redis-py gives them; "
        "those of TLS (ssl_…) need an address that begins with rediss://."
    )


def _takes(
    scheme: str,
    option: tuple[str, str],
) -> bool:
    query = urlencode([option])
    address = f"{scheme}://localhost/?{query}"
    try:
        pool = ConnectionPool.from_url(address)
        pool.connection_class(**pool.connection_kwargs)
    except _BAD_OPTIONS:
        return False
    return True


def _client(url: str, rollback_detector: RollbackDetector | None) -> Redis:
    check_server = rollback_detector.check_server if rollback_detector else None
    redis: Redis = Redis.from_url(
        url,
        decode_responses=True,
        # Where all are in use, redis-py refuses a command. A pool that waits costs more.
        max_connections=MAX_CONNECTIONS,
        socket_timeout=SOCKET_TIMEOUT_SECONDS,
        socket_connect_timeout=SOCKET_TIMEOUT_SECONDS,
        health_check_interval=HEALTH_CHECK_SECONDS,
        # A replica refuses writes for ever. On a new connection
        # the address may lead to the new primary.
        retry_on_error=[ReadOnlyError],
        redis_connect_func=check_server,
    )
    pool = redis.connection_pool
    bases = (LeanConnection, pool.connection_class)
    pool.connection_class = type("Connection", bases, {})
    # An unknown option in the address fails here, and not at the first use.
    pool.connection_class(**pool.connection_kwargs)
    if urlsplit(url).scheme == "rediss":
        check_redis_options(pool.connection_kwargs)
    return redis


@asynccontextmanager
async def opened_redis(
    url: str | None,
    rollback_detector: RollbackDetector | None = None,
    folder: Path | None = None,
) -> AsyncIterator[Redis]:
    """Yield a client of this Redis, or of the embedded Valkey of a folder.

    Raises:
        ConfigurationError: the address is malformed.
        RedisUnfitError: the embedded Valkey does not start.
    """
    async with AsyncExitStack() as stack:
        if url is None:
            # Only here, because few commands need it.
            from worker.store.embedded import embedded_server  # noqa: PLC0415

            server = embedded_server(folder or EMBEDDED_FOLDER)
            url = await stack.enter_async_context(server)
        redis = connect(url, rollback_detector)
        yield await stack.enter_async_context(redis)


def recovery_client(redis: Redis) -> Redis:
    """Return a client of the same address that accepts any server."""
    pool = redis.connection_pool
    options = {**pool.connection_kwargs, "redis_connect_func": None}
    recovery = ConnectionPool(pool.connection_class, pool.max_connections, **options)
    return Redis.from_pool(recovery)


@asynccontextmanager
async def reading_client(redis: Redis, connections: int) -> AsyncIterator[Redis]:
    """Yield a client of the same address with connections of its own, for others to read.

    It accepts any server: whoever only reads needs no protection from one that went back.
    Bytes that are no UTF-8 become text with escapes: one channel must not spoil a whole answer.
    """
    pool = redis.connection_pool
    readable = {"redis_connect_func": None, "encoding_errors": "backslashreplace"}
    options = {**pool.connection_kwargs, **readable}
    own_pool = ConnectionPool(pool.connection_class, connections, **options)
    async with Redis.from_pool(own_pool) as client:
        yield client


class LeanConnection:
    """Mixin for redis-py's connections.

    redis-py sends with ``wait_for``. On Python 3.11 that starts a task for each command,
    and swallows a cancellation. Commands are packed by hiredis; redis-py would pack them in Python.
    It also waits ten seconds for the end of TLS, which a server that hangs never sends.
    """

    async def disconnect(self: Any, nowait: bool = False, **details: Any) -> None:
        """Close the connection. TLS that the server does not end in time is cut."""
        if nowait or self._writer is None:
            await AbstractConnection.disconnect(self, nowait, **details)
            return
        transport = self._writer.transport
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await AbstractConnection.disconnect(self, nowait, **details)
        except (TimeoutError, RedisTimeoutError):
            transport.abort()

    async def send_packed_command(
        self: Any,
        command: Iterable[bytes],
        check_health: bool = True,
    ) -> None:
        """Send a command; after an error the connection is closed."""
        if not self.is_connected:
            await self.connect_check_health(check_health=False)
        if check_health:
            await self.check_health()
        try:
            self._writer.writelines(command)
            if self._writer.transport.get_write_buffer_size():
                async with asyncio.timeout(self.socket_timeout):
                    await self._writer.drain()
        except BaseException as error:
            # The next call must not read this answer.
            await self.disconnect(nowait=True)
            if isinstance(error, TimeoutError):
                raise RedisTimeoutError("Timeout writing to socket") from None
            if isinstance(error, OSError):
                raise RedisConnectionError(f"{error} while writing to socket") from error
            raise

    def pack_command(self, *args: Any) -> list[bytes]:
        """Return one command as bytes; its name may have two words."""
        if " " in args[0]:
            args = (*args[0].split(), *args[1:])
        return [hiredis.pack_command(args)]

    def pack_commands(self, commands: Iterable[Any]) -> list[bytes]:
        """Return several commands as bytes."""
        packed: list[bytes] = []
        for command in commands:
            packed += self.pack_command(*command)
        return packed
