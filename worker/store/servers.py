"""One server, or the many of a cluster: what the store must know of the difference."""

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from typing import Any, Final, TypeVar

from redis.asyncio.cluster import ClusterNode
from redis.exceptions import ResponseError

from worker.store.cluster_client import ClusterClient
from worker.store.redis_errors import redis_errors

KEYS_AT_ONCE: Final = 1000
"""Keys that one SCAN looks at."""
SLOTS: Final = 16_384
WAIT_MILLISECONDS: Final = 1000
"""How long replicas may take to have a write."""

Item = TypeVar("Item")


def is_cluster(redis: Any) -> bool:
    """Tell whether a client's keys lie on many servers."""
    return isinstance(redis, ClusterClient)


def grouped(redis: Any, items: Sequence[Item]) -> Iterable[Sequence[Item]]:
    """Yield what one script call may take: all items, or in a cluster each by itself."""
    if is_cluster(redis):
        return [[item] for item in items]
    return [items] if items else []


async def servers(redis: Any) -> Sequence[Any]:
    """Return what runs a command on each server that takes writes."""
    if is_cluster(redis):
        return list(await redis.ready_primaries())
    return [redis]


async def keys_of_servers(redis: Any, key: str) -> Sequence[str]:
    """Return a key of each server that takes writes. Each begins with this key."""
    if not is_cluster(redis):
        return [key]
    left = {node.name for node in await redis.ready_primaries()}
    found: list[str] = []
    for number in range(SLOTS):
        candidate = f"{key}:{number}"
        node = redis.get_node_from_key(candidate)
        if node and node.name in left:
            left.discard(node.name)
            found.append(candidate)
        if not left:
            break
    return found


async def pages_of_keys(
    redis: Any,
    pattern: str,
    type: str | None = None,
) -> AsyncIterator[list[str]]:
    """Yield the keys of all servers, some at once; those of one ``type``.

    While a cluster moves slots, a key may be missing, or come twice.
    """
    for server in await servers(redis):
        scan_cursor = 0
        while True:
            with redis_errors():
                scan_cursor, names = await _scan(server, scan_cursor, pattern, type)
            yield names
            if not scan_cursor:
                break


async def _scan(server: Any, scan_cursor: int, pattern: str, type: str | None) -> Any:
    if not isinstance(server, ClusterNode):
        return await server.scan(scan_cursor, pattern, KEYS_AT_ONCE, type)
    options = ("TYPE", type) if type else ()
    words = ("MATCH", pattern, "COUNT", KEYS_AT_ONCE, *options)
    return await server.execute_command("SCAN", scan_cursor, *words)


async def add_waits(
    redis: Any,
    pipe: Any,
    keys: Iterable[str],
    replicas: int,
) -> None:
    """Let a pipeline wait until replicas have what it has written to these keys."""
    wait = ("WAIT", replicas, WAIT_MILLISECONDS)
    if not is_cluster(redis):
        pipe.execute_command(*wait)
        return
    nodes = {await redis.ready_node(key) for key in keys}
    for node in nodes:
        pipe.execute_command(*wait, target_nodes=node)


def check_waits(counts: Collection[Any], replicas: int) -> None:
    """Refuse a write that too few replicas have.

    Raises:
        ResponseError: try again. To apply twice is to apply once.
    """
    for count in counts:
        if isinstance(count, Exception):
            raise count
        if count < replicas:
            raise ResponseError(
                f"NOREPLICAS {count} of {replicas} replicas (TALLY_WAIT_REPLICAS) "
                f"had a write within {WAIT_MILLISECONDS} ms"
            )
