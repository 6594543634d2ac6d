"""Clients of several servers, for readers: of a Redis Cluster, and of what Sentinels name."""

from collections.abc import Mapping
from typing import Any, Final

from redis import BlockingConnectionPool, RedisCluster, sentinel
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
"""After an error the client reads the slot map again, and asks once more."""


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


def sync_client(address: ServersAddress, options: Options) -> Any:
    """Return a client for threads. One of a cluster asks the cluster at once."""
    if address.kind is Kind.CLUSTER:
        return _cluster(address, options)
    return _from_sentinels(sentinel, WaitingSentinelPool, Retry, address, options)


def async_client(address: ServersAddress, options: Options) -> Any:
    """Return a client for an event loop."""
    if address.kind is Kind.CLUSTER:
        return _async_cluster(address, options)
    return _from_sentinels(async_sentinel, AsyncSentinelPool, AsyncRetry, address, options)


def _cluster(address: ServersAddress, options: Options) -> Any:
    kind: Any = RedisCluster
    node: Any = ClusterNode
    first = ":".join(map(str, address.hosts[0]))
    scheme = "rediss" if address.has_tls else "redis"
    retry = Retry(NoBackoff(), _NODE_TRIES)
    return kind(
        # With an address redis-py takes the kind of pool that is given.
        url=f"{scheme}://{first}",
        startup_nodes=[node(*host) for host in address.hosts[1:]],
        connection_pool_class=BlockingConnectionPool,
        **{**options, "retry": retry},
    )


def _async_cluster(address: ServersAddress, options: Options) -> Any:
    kind: Any = AsyncRedisCluster
    retry = AsyncRetry(NoBackoff(), _NODE_TRIES)
    return kind(
        startup_nodes=[AsyncNode(*host) for host in address.hosts],
        ssl=address.has_tls,
        **{**options, "retry": retry},
    )


def _from_sentinels(
    module: Any,
    pool: type,
    retry: type,
    address: ServersAddress,
    options: Options,
) -> Any:
    """Return a client of the primary. The module of redis-py says: for threads, or for loops."""
    # The next Sentinel is asked instead.
    once = {"retry": retry(NoBackoff(), 0)}
    sentinels = module.Sentinel(
        address.hosts,
        sentinel_kwargs={**address.sentinel_options, **once},
    )
    return sentinels.master_for(
        address.service,
        connection_pool_class=pool,
        ssl=address.has_tls,
        **options,
    )
