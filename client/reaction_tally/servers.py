"""Clients of several servers, for readers: of a Redis Cluster, and of what Sentinels name."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from redis import BlockingConnectionPool, Redis, RedisCluster, sentinel
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio import RedisCluster as AsyncRedisCluster
from redis.asyncio import sentinel as async_sentinel
from redis.asyncio.cluster import ClusterNode as AsyncNode
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.retry import Retry

from reaction_tally.addresses import Kind, ServersAddress

Options = Mapping[str, Any]
_NODE_TRIES: Final = 1
"""After an error the client learns again which node has which slots, and asks once more."""
_SENTINEL_SECONDS: Final = 2.0
"""A Sentinel that does not answer in time is passed over."""
_OF_ONE_SERVER: Final = frozenset({"retry", "connection_class"})


class WaitingSentinelPool(sentinel.SentinelConnectionPool, BlockingConnectionPool):
    """Connections to the primary. A thread waits for a free one."""

    def disconnect(self, inuse_connections: bool = True) -> None:
        """End connections; if all of them, also those to the Sentinels."""
        super().disconnect(inuse_connections)
        if inuse_connections:
            for client in self.sentinel_manager.sentinels:
                client.close()


class AsyncSentinelPool(async_sentinel.SentinelConnectionPool):
    """Connections to the primary, and to the Sentinels."""

    async def aclose(self) -> None:
        """End all connections."""
        await super().aclose()
        await self.sentinel_manager.aclose()


def make_client(address: ServersAddress, options: Options) -> Callable[[], Any]:
    """Return what makes a client for threads. A client of a cluster asks it at once."""
    if address.kind is Kind.CLUSTER:
        return lambda: _cluster(address, options)
    return lambda: _of_sentinels(address, options)


def async_client(address: ServersAddress, options: Options) -> Any:
    """Return a client for an event loop."""
    if address.kind is Kind.CLUSTER:
        return _async_cluster(address, options)
    return _of_async_sentinels(address, options)


def _cluster(address: ServersAddress, options: Options) -> Any:
    kind: Any = RedisCluster
    node: Any = ClusterNode
    first = ":".join(map(str, address.hosts[0]))
    scheme = "rediss" if address.has_tls else "redis"
    return kind(
        # With an address redis-py takes the kind of pool that is given.
        url=f"{scheme}://{first}",
        startup_nodes=[node(*host) for host in address.hosts[1:]],
        retry=Retry(NoBackoff(), _NODE_TRIES),
        connection_pool_class=BlockingConnectionPool,
        **_shared(options),
    )


def _async_cluster(address: ServersAddress, options: Options) -> Any:
    kind: Any = AsyncRedisCluster
    return kind(
        startup_nodes=[AsyncNode(*host) for host in address.hosts],
        retry=AsyncRetry(NoBackoff(), _NODE_TRIES),
        ssl=address.has_tls,
        **_shared(options),
    )


def _of_sentinels(address: ServersAddress, options: Options) -> Any:
    return _sentinel_client(address, options, sentinel, WaitingSentinelPool, Redis, Retry)


def _of_async_sentinels(address: ServersAddress, options: Options) -> Any:
    return _sentinel_client(
        address, options, async_sentinel, AsyncSentinelPool, AsyncRedis, AsyncRetry
    )


def _sentinel_client(
    address: ServersAddress,
    options: Options,
    module: Any,
    pool: Any,
    client: Any,
    retry: Any,
) -> Any:
    """Return a client of the primary; ``module`` and the kinds are of threads or of loops."""
    managed = module.SentinelManagedConnection
    if address.has_tls:
        managed = module.SentinelManagedSSLConnection
    watching = module.Sentinel(
        address.hosts,
        sentinel_kwargs={**_of_sentinel(address), "retry": retry(NoBackoff(), 0)},
    )
    connections = pool(
        address.service,
        watching,
        connection_class=managed,
        **_without(options, "connection_class"),
    )
    return client.from_pool(connections)


def _of_sentinel(address: ServersAddress) -> dict[str, Any]:
    return {
        "socket_timeout": _SENTINEL_SECONDS,
        "socket_connect_timeout": _SENTINEL_SECONDS,
        **address.sentinel_options,
        "ssl": address.has_tls,
    }


def _shared(options: Options) -> dict[str, Any]:
    return _without(options, *_OF_ONE_SERVER)


def _without(options: Options, *names: str) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in names}
