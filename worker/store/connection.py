"""Clients of Redis."""

import encodings.idna  # noqa: F401 - Python loads it at the first name, when no file may be left
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import filterfalse
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from redis.asyncio import Redis

from reaction_tally.addresses import AddressError, read_servers
from worker.certificates import check_redis_options
from worker.errors import ConfigurationError
from worker.store.address import UNREADABLE, check_address
from worker.store.connector import (
    BAD_OPTIONS,
    SOCKET_TIMEOUT_SECONDS,
    Connector,
    connector_of,
)
from worker.store.rollback_detector import RollbackDetector
from worker.store.servers import is_cluster

__all__ = [
    "EMBEDDED_FOLDER",
    "SOCKET_TIMEOUT_SECONDS",
    "RedisClient",
    "connect",
    "opened_redis",
    "pool_of",
    "reading_client",
    "recovery_client",
]

RedisClient = Redis
"""A client, for parts that hand it to the store."""

EMBEDDED_FOLDER: Final = Path(".tally")


def connect(url: str, rollback_detector: RollbackDetector | None = None) -> Redis:
    """Return a client of one server, of a cluster, or of the primary that Sentinels name.

    With a detector it refuses another server than the one before,
    until the detector accepts that server. A client of a cluster does not.

    Raises:
        ConfigurationError: the address is malformed, or of another kind.
    """
    try:
        servers = read_servers(url)
        if not servers:
            check_address(url)
    except AddressError as error:
        raise ConfigurationError(f"REDIS_URL {error}") from None
    except ValueError:
        # The text of this error may quote a password, so it is left out.
        raise ConfigurationError(UNREADABLE) from None
    try:
        connector = Connector(url, servers)
        client = connector.open(rollback_detector)
    except BAD_OPTIONS:
        raise _refused_options(url) from None
    if connector.has_tls:
        check_redis_options(connector.options)
    return client


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
    path = "/service" if scheme.endswith("sentinel") else "/"
    address = f"{scheme}://localhost{path}?{query}"
    try:
        Connector(address, read_servers(address)).open()
    except BAD_OPTIONS:
        return False
    return True


@asynccontextmanager
async def opened_redis(
    url: str | None,
    rollback_detector: RollbackDetector | None = None,
    folder: Path | None = None,
    *,
    may_create: bool = True,
) -> AsyncIterator[Redis]:
    """Yield a client of this Redis, or of the embedded Valkey of a folder.

    With ``may_create=False`` the folder must be there:
    a new one has nothing to read.

    Raises:
        ConfigurationError: the address is malformed,
            or there is neither address nor folder.
        RedisUnfitError: the embedded Valkey does not start.
    """
    async with AsyncExitStack() as stack:
        if url is None:
            folder = folder or EMBEDDED_FOLDER
            if not may_create:
                _expect_data(folder)
            # Only here, because few commands need it.
            from worker.store.embedded import embedded_server  # noqa: PLC0415

            server = embedded_server(folder)
            url = await stack.enter_async_context(server)
        redis = connect(url, rollback_detector)
        yield await stack.enter_async_context(redis)


def _expect_data(folder: Path) -> None:
    if folder.exists():
        return
    raise ConfigurationError(
        "REDIS_URL is not set. "
        "Set it in this terminal, "
        "or in the file .env here. "
        "If the worker has an embedded Valkey, "
        "go to the folder where the worker was started: "
        f"{folder.absolute()} does not exist."
    )


def recovery_client(redis: Redis) -> Redis:
    """Return a client of the same address that accepts any server."""
    return connector_of(redis).open()


@asynccontextmanager
async def reading_client(redis: Redis, connections: int) -> AsyncIterator[Redis]:
    """Yield a client of the same address with connections of its own, for others to read.

    It accepts any server: a reader needs no protection from one that went back.
    Bytes that are no UTF-8 become text with escapes:
    one channel must not spoil a whole answer.
    """
    connector = connector_of(redis)
    async with connector.open(
        max_connections=connections,
        encoding_errors="backslashreplace",
    ) as client:
        yield client


def pool_of(redis: Redis) -> Any:
    """Return what ends a client's connections by ``disconnect()``.

    New ones may lead to another server.
    """
    client: Any = redis
    return client if is_cluster(redis) else client.connection_pool
