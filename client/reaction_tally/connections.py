"""Clients of Redis for readers."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from redis import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio import ConnectionPool as AsyncPool
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio import RedisCluster as AsyncRedisCluster
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.retry import Retry

from reaction_tally import servers
from reaction_tally.addresses import SCHEMES as SERVERS
from reaction_tally.addresses import AddressError, ServersAddress, read_servers
from reaction_tally.errors import InvalidNameError

SCHEMES: Final = ("redis", "rediss", "unix")
MAX_CONNECTIONS: Final = 50
"""A read waits for one of them. So many reads as you like may run at once."""
WAIT_SECONDS: Final = 10.0
"""The longest wait for a connection, and for an answer."""
LONGEST_SECONDS: Final = 1e6
_DATABASE: Final = re.compile("/?[0-9]*/?")
_NO_CONNECTIONS: Final = re.compile("(?:^|&)max_connections=(?:-|0*(?:&|$))")
_TOO_FEW: Final = "`max_connections` is 1 or more."
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


def make_client(url: str) -> tuple[Callable[[], Any], str]:
    """Return what makes a client for threads, and the name of its server for people.

    Options in the address count more: ``?max_connections=200&socket_timeout=2``.

    Raises:
        InvalidNameError: the address is malformed, or of another kind.
    """
    address = _servers(url)
    if address:
        options = _options(BlockingConnectionPool, address)
        return partial(servers.sync_client, address, options), address.name
    client = Redis.from_pool(_pool(BlockingConnectionPool, url))
    return lambda: client, server_name(client)


def make_async_client(url: str, **overriding: Any) -> tuple[Callable[[], Any], str, Any]:
    """Return the same for an event loop, and the longest wait for an answer.

    ``overriding`` options count more than those in the address.

    Raises:
        InvalidNameError: the address is malformed, or of another kind.
    """
    address = _servers(url)
    if address:
        options = _options(AsyncPool, address)
        seconds = options["socket_timeout"]
        make = partial(servers.async_client, address, {**options, **overriding})
        _try(make)
        return make, address.name, seconds

    def make_one() -> AsyncRedis:
        connections = _pool(AsyncPool, url)
        connections.connection_kwargs.update(overriding)
        return AsyncRedis.from_pool(connections)

    seconds = _pool(AsyncPool, url).connection_kwargs["socket_timeout"]
    return make_one, server_name(make_one()), seconds


def _try(make: Callable[[], Any]) -> None:
    """Make a client, which opens no connection: some options are not for clusters."""
    try:
        make()
    except (ValueError, TypeError, AttributeError, RedisError):
        raise InvalidNameError(f"The address of Redis: {_MALFORMED}") from None


def _servers(url: str) -> ServersAddress | None:
    try:
        return read_servers(url)
    except AddressError as error:
        raise InvalidNameError(f"The address of Redis {error}") from None


def _options(kind: Any, address: ServersAddress) -> dict[str, Any]:
    """Return the options of connections, checked as those of one server are."""
    scheme = "rediss" if address.has_tls else "redis"
    given = address.data_options
    _refuse([(given.get("max_connections", 1) < 1, _TOO_FEW)])
    _pool(kind, f"{scheme}://localhost", **given)
    return {**_options_of(kind), **given}


def _pool(kind: Any, url: str, **given: Any) -> Any:
    """Return a pool of this kind; ``given`` options are as those in the address.

    Raises:
        InvalidNameError: the address is malformed, or of another kind.
    """
    try:
        scheme = urlsplit(url).scheme
    except ValueError:
        raise InvalidNameError(f"The address of Redis: {_MALFORMED}") from None
    if scheme not in SCHEMES:
        kinds = ", ".join(f"{each}://" for each in (*SCHEMES, *SERVERS))
        raise InvalidNameError(f"The address of Redis must begin with one of {kinds}.")
    _refuse(_flaws_of_text(url))
    # The text of redis-py's errors may quote a password, so it is left out.
    try:
        made = kind.from_url(url, **{**_options_of(kind), **given})
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
    yield _NO_CONNECTIONS.search(parts.query), _TOO_FEW


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


def client_of(redis: Any, *kinds: type) -> Any:
    """Return a client that a reader may use.

    Raises:
        TypeError: it is none, or one for the other reader.
    """
    if isinstance(redis, str):
        raise TypeError("for an address there is from_url: TallyReader.from_url(address)")
    others = Redis | RedisCluster | AsyncRedis | AsyncRedisCluster
    if isinstance(redis, kinds) or not isinstance(redis, others):
        return redis  # it may be another class with the same methods
    kind = kinds[0]
    wanted = f"{kind.__module__.removesuffix('.client')}.{kind.__name__}"
    raise TypeError(f"this reader needs a client like {wanted}, and not {redis!r}")


def server_name(client: Any) -> str:
    """Return the server and the database of a client, without a password, for people."""
    pool = getattr(client, "connection_pool", None)
    service = getattr(pool, "service_name", None)
    nodes = getattr(client, "startup_nodes", ())
    if service:
        return f"Redis of the service {service!r}"
    if nodes:
        return f"the Redis Cluster of {nodes[0].host}:{nodes[0].port}"
    options = getattr(pool, "connection_kwargs", {})
    database = options.get("db") or 0
    if "path" in options:
        return f"Redis at {options['path']}, database {database},"
    if "host" in options:
        port = options.get("port", 6379)
        return f"Redis at {options['host']}:{port}, database {database},"
    return "Redis"
