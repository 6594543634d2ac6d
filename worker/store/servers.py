"""One server, or the nodes of a cluster: what the store must know of the difference."""

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from redis.asyncio.cluster import ClusterNode
from redis.crc import REDIS_CLUSTER_HASH_SLOTS

from worker.errors import TallyError
from worker.store.batch import batched
from worker.store.cluster_client import ClusterClient
from worker.store.redis_errors import redis_errors
from worker.store.replicas import Wait

KEYS_AT_ONCE: Final = 1000
"""Keys that one SCAN looks at."""

Item = TypeVar("Item")


def is_cluster(redis: Any) -> bool:
    """Tell whether a client's keys lie on many servers."""
    return isinstance(redis, ClusterClient)


def grouped(redis: Any, items: Sequence[Item]) -> Iterable[Sequence[Item]]:
    """Return the items of each script call: all in one call, or in a cluster one a call."""
    size = 1 if is_cluster(redis) else max(1, len(items))
    return batched(items, size)


async def servers(redis: Any) -> Sequence[Any]:
    """Return what runs a command on each server that takes writes."""
    if is_cluster(redis):
        return list(await redis.ready_primaries())
    return [redis]


def server_of(redis: Any, key: str) -> Any:
    """Return the server that has a key."""
    return redis.get_node_from_key(key) if is_cluster(redis) else redis


@contextmanager
def node_named(server: Any) -> Iterator[None]:
    """Say in an error which node of a cluster it is about.

    Raises:
        TallyError: what was raised, with the address of the node.
    """
    try:
        yield
    except TallyError as error:
        if not isinstance(server, ClusterNode) or server.name in str(error):
            raise
        raise type(error)(f"At {server.name}: {error}") from error.__cause__


async def keys_of_servers(redis: Any, key: str) -> Sequence[str]:
    """Return a key of each server that takes writes. Each begins with this key."""
    if not is_cluster(redis):
        return [key]
    primaries = await redis.ready_primaries()
    keys: dict[str, str] = {}
    for number in range(REDIS_CLUSTER_HASH_SLOTS):
        candidate = f"{key}:{number}"
        node = redis.get_node_from_key(candidate)
        keys.setdefault(node.name, candidate)
        if len(keys) == len(primaries):
            break
    return [*keys.values()]


async def pages_of_keys(
    redis: Any,
    pattern: str,
    type: str | None = None,
) -> AsyncIterator[list[str]]:
    """Yield the keys of all servers, some at once; those of one ``type``.

    While a cluster moves slots, a key may be missing, or come twice.
    """
    words: list[Any] = ["MATCH", pattern, "COUNT", KEYS_AT_ONCE]
    if type:
        words += ["TYPE", type]
    for server in await servers(redis):
        scan_cursor, is_next = 0, True
        while is_next:
            with redis_errors():
                # A node of a cluster has no method `scan`.
                page = await server.execute_command("SCAN", scan_cursor, *words)
            scan_cursor, names = page
            yield names
            is_next = scan_cursor != 0


async def execute_writes(redis: Any, pipe: Any, replicas: int) -> list[Any]:
    """Execute a pipeline of writes; return its answers once so many replicas have them.

    If too few have them, each answer is an error.
    A write may be repeated.
    """
    wait = Wait(replicas)
    if is_cluster(redis):
        pipe.wait_for_replicas(wait)
        return list(await pipe.execute(raise_on_error=False))
    for command in wait.commands:
        pipe.execute_command(*command)
    # redis-py connects anew after some errors, if it raises them.
    answers = await pipe.execute()
    size = len(answers) - len(wait.commands)
    return wait.check(answers[:size], answers[size:])
