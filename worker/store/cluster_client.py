"""redis-py's client of a Redis Cluster, which leaves the calls of others alone."""

import asyncio
from contextlib import suppress
from typing import Any, Self

from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.exceptions import ClusterError, RedisError

from worker.store.cluster_pipelines import ClusterPipeline


class ClusterClient(RedisCluster):
    """redis-py closes every connection to every node after some errors of one call.

    Calls to healthy nodes would fail with it.
    So here ``aclose`` ends no connection: the next call reads the slot map again.
    A ``with`` block ends connections.
    The slot map is what a client knows: which node has which slots.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._importing: dict[str, ClusterNode] = {}
        """Nodes that import their first slot."""

    def get_node(
        self,
        host: str | None = None,
        port: int | None = None,
        node_name: str | None = None,
    ) -> ClusterNode:
        """Return a node, also one that imports its first slot: the slot map lacks it."""
        name = node_name or f"{host}:{port}"
        node = self.nodes_manager.get_node(node_name=name) or self._importing.get(name)
        if node is None:
            host, _, number = name.rpartition(":")
            options: Any = self.nodes_manager.connection_kwargs
            node = self._importing[name] = ClusterNode(host, int(number), **options)
        return node

    async def aclose(self) -> None:
        """Forget the slot map; redis-py calls this after errors."""
        self._initialize = True

    async def disconnect(self) -> None:
        """End all connections, also those in use; forget the slot map."""
        self._initialize = True
        await self.nodes_manager.aclose()
        await self.nodes_manager.aclose("startup_nodes")
        for node in self._importing.values():
            await node.disconnect()

    async def initialize(self, *args: Any, **options: Any) -> Self:
        """Read the slot map, unless it is known."""
        try:
            await super().initialize(*args, **options)
        except BaseException:
            # Nodes that were discovered may be gone for good, as pods with new addresses are.
            # Those of the address are asked again.
            known = {node.name: node for node in self.startup_nodes}
            self.nodes_manager.startup_nodes.update(known)
            raise
        return self

    async def __aenter__(self) -> Self:
        """Connect later, like a client of one server."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """End all connections."""
        await asyncio.shield(self.disconnect())

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Return the answer to one command.

        If the key has left, redis-py sends ASKING on one connection, and the command on another.
        With an even number of connections that never succeeds.
        """
        try:
            return await super().execute_command(*args, **options)
        except ClusterError as error:
            if type(error) is not ClusterError:
                raise
        pipe = self.pipeline()
        pipe.execute_command(*args, **options)
        (answer,) = await pipe.execute()
        return answer

    def pipeline(self, transaction: Any = None, _: Any = None) -> Any:
        """Return a pipeline. In a transaction, the commands of each slot are atomic."""
        kind: Any = ClusterPipeline
        return kind(self, is_atomic=bool(transaction))

    async def script_load(self, script: Any) -> Any:
        """Load a script on all primaries, and on nodes that import their first slot."""
        for node in self._importing.values():
            # It may be gone again. Whoever calls the script there sees why.
            with suppress(RedisError, OSError):
                await node.execute_command("SCRIPT LOAD", script)
        return await super().script_load(script)

    async def mget(self, keys: Any, *args: Any) -> Any:
        """Return the values of keys of any slots. They are not read at one instant."""
        pipe = self.pipeline()
        pipe.mget([*keys, *args])
        (values,) = await pipe.execute()
        return values

    async def ready_primaries(self) -> list[ClusterNode]:
        """Return the primaries in the slot map."""
        await self.initialize()
        return self.get_primaries()
