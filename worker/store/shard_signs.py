"""The sign of a shard says with which history of writes its primary goes on.

A restart gives the primary another ``run_id``.
A failover gives the data another ``master_replid``.
So a shard with the same sign has lost nothing.
One with another sign may have lost something; a planned failover loses nothing.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from redis.exceptions import ClusterDownError

from reaction_tally.keys import Keys
from worker.store.cluster_client import ClusterClient
from worker.store.redis_errors import redis_errors
from worker.store.servers import is_cluster

DIGITS: Final = 16
"""Hexadecimal digits of a sign."""
LAYOUT: Final = "layout:"
NODE_ID: Final = 2
"""Where CLUSTER SLOTS has the id of a node."""

Signs = Mapping[str, str]
"""The name of a primary → the sign of its shard."""


class ShardSigns:
    """The signs of a cluster's shards."""

    def __init__(self, redis: ClusterClient, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def read(self) -> Signs:
        """Return the signs as they are now.

        Raises:
            RedisUnavailableError: a primary does not answer, or is a replica now.
        """
        with redis_errors():
            try:
                return await self._read()
            except Exception:
                # A failover: which nodes are primaries is asked anew.
                await self._redis.aclose()
                return await self._read()

    async def _read(self) -> Signs:
        nodes = await self._redis.ready_primaries()
        return {node.name: await _sign_of(node) for node in nodes}

    async def layout(self) -> str:
        """Return a digest of how slots are shared out among shards.

        Nodes have no name in it.
        """
        with redis_errors():
            node, *_ = await self._redis.ready_primaries()
            ranges = await node.execute_command("CLUSTER SLOTS")
        firsts: dict[str, int] = {}
        rows = [
            (first, last, firsts.setdefault(primary[NODE_ID], first))
            for first, last, primary, *_ in sorted(ranges)
        ]
        return LAYOUT + _digest(str(rows))

    async def refresh_slot_map(self) -> None:
        """Read again which node has which slots.

        A client notices a move only when it sends a command to that slot.
        """
        with redis_errors():
            await self._redis.aclose()
            await self._redis.initialize()

    def on_other_shards(
        self,
        channels: Iterable[str],
        signs: Signs,
        known: Collection[str],
    ) -> set[str]:
        """Return the channels on shards whose sign is not a ``known`` one."""
        head = self._keys.head
        return {name for name in channels if self.is_on_other_shard(head(name), signs, known)}

    def is_on_other_shard(
        self,
        key: str,
        signs: Signs,
        known: Collection[str],
    ) -> bool:
        """Tell whether the sign of a key's shard is not a ``known`` one."""
        node = self._redis.get_node_from_key(key)
        return node is None or signs.get(node.name) not in known


def signs_of(redis: Any, keys: Keys) -> ShardSigns | None:
    """Return what reads the signs of a cluster; None for one server."""
    return ShardSigns(redis, keys) if is_cluster(redis) else None


def text_of(signs: Signs) -> str:
    """Return the signs as a cursor keeps them."""
    return " ".join(sorted(signs.values()))


def changed_servers(signs: Signs, trusted: Collection[str]) -> list[str]:
    """Return the primaries, host and port, that have none of the trusted signs."""
    return sorted(server for server, sign in signs.items() if sign not in trusted)


async def _sign_of(node: Any) -> str:
    server = await node.execute_command("INFO", "server")
    replication = await node.execute_command("INFO", "replication")
    if replication["role"] != "master":
        raise ClusterDownError(f"{node.name} is a replica now")
    return _digest(f"{server['run_id']} {replication['master_replid']}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]
