"""Opens clients of one address: of one server, of a cluster, or of what Sentinels name."""

import ssl
from collections.abc import Mapping
from typing import Any, Final, cast
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from redis.asyncio import Connection, ConnectionPool, Redis, SSLConnection
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    Sentinel,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisClusterException, RedisError

from reaction_tally.addresses import Host, Kind, ServersAddress
from worker.store.cluster_client import ClusterClient
from worker.store.lean_connection import lean
from worker.store.rollback_detector import RollbackDetector
from worker.store.sentinel_pool import SentinelPool

SOCKET_TIMEOUT_SECONDS: Final = 10.0
NODE_CONNECT_SECONDS: Final = 2.0
"""A node of a cluster that takes no connection in time is passed over."""
HEALTH_CHECK_SECONDS: Final = 30
MAX_CONNECTIONS: Final = 10_000
"""As many as a Redis takes by default.

Each answer may need one. The limit of open files bounds their number.
"""
CLUSTER_TRIES: Final = 1
"""After an error a call reads the slot map again, and is sent once more.

Further tries are up to the caller, who also says that Redis is away.
"""
BAD_OPTIONS: Final = (
    ValueError,
    TypeError,
    AttributeError,
    RedisError,
    RedisClusterException,
)
"""What redis-py raises for an option that it does not take."""
_DEFAULTS: Final[Mapping[str, Any]] = {
    "decode_responses": True,
    # Where all are in use, redis-py refuses a command. A pool that waits costs more.
    "max_connections": MAX_CONNECTIONS,
    "socket_timeout": SOCKET_TIMEOUT_SECONDS,
    "socket_connect_timeout": SOCKET_TIMEOUT_SECONDS,
    "health_check_interval": HEALTH_CHECK_SECONDS,
}


class Connector:
    """Knows an address, and opens clients of it."""

    def __init__(self, url: str, servers: ServersAddress | None) -> None:
        """``servers`` is the address taken apart, if it is one of several servers."""
        self.url = url
        self.servers = servers
        options: Any = servers.data_options if servers else parse_url(url)
        self.options: dict[str, Any] = {**options}
        """What the address itself says of connections."""

    @property
    def kind(self) -> Kind | None:
        """What the address leads to; None is one server."""
        return self.servers.kind if self.servers else None

    @property
    def has_tls(self) -> bool:
        """Whether connections speak TLS."""
        return self.scheme.startswith("rediss")

    @property
    def scheme(self) -> str:
        """How the address begins."""
        return urlsplit(self.url).scheme

    @property
    def hosts(self) -> tuple[Host, ...]:
        """The hosts in the address; none for a Unix socket."""
        if self.servers:
            return self.servers.hosts
        if "path" in self.options:
            return ()
        host = self.options.get("host", "localhost")
        return ((host, self.options.get("port", 6379)),)

    @property
    def first_host(self) -> str:
        """The first host, with its port; an empty text for a Unix socket."""
        return ":".join(map(str, next(iter(self.hosts), ())))

    def tls_context(self) -> ssl.SSLContext:
        """Return how connections check the other side."""
        options = without(self.options, "max_connections", "connection_class")
        context: ssl.SSLContext = SSLConnection(**options).ssl_context.get()
        return context

    def open(
        self,
        rollback_detector: RollbackDetector | None = None,
        **overriding: Any,
    ) -> Redis:
        """Return a client. ``overriding`` options count more than those in the address.

        With a detector it refuses another server than the one before,
        until the detector accepts that server. In a cluster others watch the servers.
        """
        options = {**_DEFAULTS, **self.options, **overriding}
        if self.kind is Kind.CLUSTER:
            client = self._cluster_client(options)
        else:
            pool = self._pool(options, rollback_detector)
            # An unknown option in the address fails here, and not at the first use.
            pool.connection_class(**pool.connection_kwargs)
            client = Redis.from_pool(pool)
        _connectors[client] = self
        return client

    def open_server(self, host: Host) -> Redis:
        """Return a client of one of several servers. It may be a replica."""
        name, port = host
        options = {**_DEFAULTS, **self.options, "host": name, "port": port}
        kind = SSLConnection if self.has_tls else Connection
        client = Redis.from_pool(ConnectionPool(lean(kind), **options))
        _connectors[client] = self
        return client

    def _pool(
        self,
        options: dict[str, Any],
        rollback_detector: RollbackDetector | None,
    ) -> ConnectionPool:
        # A replica refuses writes for ever. On a new connection
        # the address may lead to the new primary.
        # After a timeout there is no other try: it would take as long again.
        options["retry"] = Retry(
            NoBackoff(),
            1,
            supported_errors=(
                RedisConnectionError,
                ReadOnlyError,
            ),
        )
        if rollback_detector:
            options["redis_connect_func"] = rollback_detector.check_server
        if self.servers:
            return self._sentinel_pool(self.servers, options)
        kind = options.pop("connection_class", Connection)
        return ConnectionPool(lean(kind), **options)

    def _sentinel_pool(
        self,
        servers: ServersAddress,
        options: dict[str, Any],
    ) -> SentinelPool:
        own = {
            **servers.sentinel_options,
            "decode_responses": True,
            # The next Sentinel is asked instead.
            "retry": Retry(NoBackoff(), 0),
        }
        kind: type = SentinelManagedConnection
        if servers.has_tls:
            kind = SentinelManagedSSLConnection
        sentinel: Any = Sentinel
        pool: Any = SentinelPool
        made: SentinelPool = pool(
            servers.service,
            sentinel(servers.hosts, sentinel_kwargs=own),
            connection_class=lean(kind),
            **options,
        )
        return made

    def _cluster_client(self, options: dict[str, Any]) -> Redis:
        kind = lean(SSLConnection if self.has_tls else Connection)
        # redis-py's client of a cluster would leave an option out that fits no connection.
        kind(**without(self.options, "max_connections"))
        if "socket_connect_timeout" not in self.options:
            options["socket_connect_timeout"] = NODE_CONNECT_SECONDS
        client = ClusterClient(
            startup_nodes=[ClusterNode(*host) for host in self.hosts],
            retry=Retry(NoBackoff(), CLUSTER_TRIES),
            ssl=self.has_tls,
            **options,
        )
        client.connection_kwargs["connection_class"] = kind
        for node in client.startup_nodes:
            node.connection_class = kind
        # It has the same methods; whoever needs a server of its own asks `is_cluster`.
        return cast("Redis", client)


def without(options: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return the other options."""
    return {name: value for name, value in options.items() if name not in names}


_connectors: Final[WeakKeyDictionary[Redis, Connector]] = WeakKeyDictionary()


def connector_of(redis: Redis) -> Connector:
    """Return what opened a client.

    Raises:
        KeyError: it was opened in another way.
    """
    return _connectors[redis]
