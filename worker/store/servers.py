"""One server, or the many of a cluster: what the store must know of the difference."""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Final, TypeVar

from redis.asyncio.cluster import ClusterNode

from worker.store.cluster_client import ClusterClient
from worker.store.cluster_pipelines import Wait
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


async def written(redis: Any, pipe: Any, replicas: int) -> list[Any]:
    """Execute a pipeline of writes; return its answers once so many replicas have them.

    Raises:
        ResponseError: too few have them. To apply twice is to apply once.
    """
    wait = Wait(replicas, WAIT_MILLISECONDS)
    if is_cluster(redis):
        if replicas:
            pipe.let_replicas_have(wait)
        return list(await pipe.execute(raise_on_error=False))
    if replicas:
        pipe.execute_command(*wait.command)
    # redis-py connects anew after some errors, if it raises them.
    answers = list(await pipe.execute())
    if replicas:
        refusal = wait.refusal(answers.pop())
        if refusal:
            raise refusal
    return answers
