"""Clients of Redis for readers."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from redis import BlockingConnectionPool, Redis
from redis.asyncio import ConnectionPool as AsyncPool
from redis.asyncio import Redis as AsyncRedis
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
LONGEST_SECONDS: Final = 1e6
_DATABASE: Final = re.compile("/?[0-9]*/?")
_NO_CONNECTIONS: Final = re.compile("(?:^|&)max_connections=(?:-|0*(?:&|$))")
_MALFORMED: Final = (
    "It cannot be read. Example: redis://:password@host:6379/0?socket_timeout=2. "
    "Special characters in a password (/ @ : # ? [ ] %) must be percent-encoded. "
    "Options have the names that redis-py gives them."
)
_OPTIONS: Final[Mapping[str, Any]] = {
    "decode_responses": False,
    "max_connections": MAX_CONNECTIONS,
    "socket_timeout": WAIT_SECONDS,
    "socket_connect_timeout": WAIT_SECONDS,
}


def pool(kind: Any, url: str) -> Any:
    """Return a pool of this kind.

    Options in the address count more: ``?max_connections=200&socket_timeout=2``.

    Raises:
        InvalidNameError: the address is malformed, or of another kind.
    """
    try:
        scheme = urlsplit(url).scheme
    except ValueError:
        raise InvalidNameError(f"The address of Redis: {_MALFORMED}") from None
    if scheme not in SCHEMES:
        kinds = ", ".join(f"{each}://" for each in SCHEMES)
        raise InvalidNameError(f"The address of Redis must begin with one of {kinds}.")
    _refuse(_flaws_of_text(url))
    # The text of redis-py's errors may quote a password, so it is left out.
    try:
        made = kind.from_url(url, **_options_of(kind))
        # An option that does not exist fails here, and not at the first read.
        made.connection_class(**made.connection_kwargs)
    except (ValueError, TypeError, AttributeError, RedisError):
        raise InvalidNameError(f"The address of Redis: {_MALFORMED}") from None
    _refuse(_flaws_of_options(made.connection_kwargs))
    return made


def _options_of(kind: Any) -> dict[str, Any]:
    retry = AsyncRetry if kind is AsyncPool else Retry
    # A connection that the server has closed meanwhile is opened again, once.
    once = retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,))
    options: dict[str, Any] = {**_OPTIONS, "retry": once}
    if kind is BlockingConnectionPool:
        options["timeout"] = WAIT_SECONDS
    return options


def _flaws_of_text(url: str) -> Iterator[tuple[object, str]]:
    """Yield what redis-py would take for something else: whether it is there, and a sentence."""
    parts = urlsplit(url)
    path = "" if parts.scheme == "unix" else parts.path
    # An @ or / of a password that is not encoded makes another host of the rest.
    yield "@" in path + parts.query + parts.fragment, _MALFORMED
    yield parts.fragment, _MALFORMED
    yield not _DATABASE.fullmatch(path), f"The database {path!r} is no number."
    yield _NO_CONNECTIONS.search(parts.query), "`max_connections` is 1 or more."


def _flaws_of_options(options: Mapping[str, Any]) -> Iterator[tuple[object, str]]:
    """Yield what would fail at the first read."""
    seconds = (options["socket_timeout"], options["socket_connect_timeout"])
    is_retry = isinstance(options["retry"], Retry | AsyncRetry)
    yield not is_retry, "`retry` is no option."
    yield not min(seconds) > 0, "`socket_timeout` and the like are above 0."
    yield not max(seconds) < LONGEST_SECONDS, "`socket_timeout` and the like are seconds."


def _refuse(flaws: Iterable[tuple[object, str]]) -> None:
    for is_there, sentence in flaws:
        if is_there:
            raise InvalidNameError(f"The address of Redis: {sentence}")


def client_of(redis: Any, kind: type) -> Any:
    """Return a client that a reader may use.

    Raises:
        TypeError: it is none, or one for the other reader.
    """
    if isinstance(redis, str):
        raise TypeError("for an address there is from_url: TallyReader.from_url(address)")
    if isinstance(redis, kind) or not isinstance(redis, Redis | AsyncRedis):
        return redis  # it may be another class with the same methods
    wanted = f"{kind.__module__.removesuffix('.client')}.{kind.__name__}"
    raise TypeError(f"this reader needs a client like {wanted}, and not {redis!r}")


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
