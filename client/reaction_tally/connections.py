"""Clients of Redis for readers."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool as AsyncPool
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.retry import Retry

from reaction_tally.errors import InvalidNameError

SCHEMES: Final = ("redis", "rediss", "unix")
MAX_CONNECTIONS: Final = 50
"""A read waits for one of them. So many reads as you like may run at once."""
WAIT_SECONDS: Final = 10.0
"""The longest wait for a connection, and for an answer."""
_OPTIONS: Final[Mapping[str, Any]] = {
    "decode_responses": False,
    "max_connections": MAX_CONNECTIONS,
    "timeout": WAIT_SECONDS,
    "socket_timeout": WAIT_SECONDS,
    "socket_connect_timeout": WAIT_SECONDS,
}


def pool(kind: Any, url: str) -> Any:
    """Return a pool of this kind, which waits while all its connections are in use.

    Options in the address count more: ``?max_connections=200&socket_timeout=2``.

    Raises:
        InvalidNameError: the address is malformed, or of another kind.
    """
    try:
        if urlsplit(url).scheme in SCHEMES:
            # A connection that the server has closed meanwhile is opened again, once.
            retry = (AsyncRetry if kind is AsyncPool else Retry)(
                NoBackoff(), 1, supported_errors=(RedisConnectionError,)
            )
            made = kind.from_url(url, retry=retry, **_OPTIONS)
            # An option that does not exist fails here, and not at the first read.
            made.connection_class(**made.connection_kwargs)
            return made
    except (ValueError, TypeError, RedisError):
        # The text of this error may quote a password, so it is left out.
        raise InvalidNameError(
            "The address of Redis cannot be read. Example: redis://:password@host:6379/0. "
            "Special characters in a password (/ @ : # ? [ ] %) must be percent-encoded."
        ) from None
    kinds = ", ".join(f"{scheme}://" for scheme in SCHEMES)
    raise InvalidNameError(f"The address of Redis must begin with one of {kinds}.")


def place(client: Any) -> str:
    """Return the server and the database of a client, without a password, for people."""
    pool = getattr(client, "connection_pool", None)
    options = getattr(pool, "connection_kwargs", {})
    database = options.get("db") or 0
    if "path" in options:
        return f"Redis at {options['path']}, database {database},"
    if "host" in options:
        port = options.get("port", 6379)
        return f"Redis at {options['host']}:{port}, database {database},"
    return "Redis"
