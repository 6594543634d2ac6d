"""One server, or the many of a cluster: what the store must know of the difference."""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Final, TypeVar

from worker.store.batch import batched
from worker.store.cluster_client import ClusterClient
from worker.store.redis_errors import redis_errors
from worker.store.replicas import Wait

KEYS_AT_ONCE: Final = 1000
"""Keys that one SCAN looks at."""
SLOTS: Final = 16_384

Item = TypeVar("Item")


def is_cluster(redis: Any) -> bool:
    """Tell whether a client's keys lie on many servers."""
    return isinstance(redis, ClusterClient)


def grouped(redis: Any, items: Sequence[Item]) -> Iterable[Sequence[Item]]:
    """Return what one script call may take: all items, or in a cluster each by itself."""
    size = 1 if is_cluster(redis) else max(1, len(items))
    return batched(items, size)


async def servers(redis: Any) -> Sequence[Any]:
    """Return what runs a command on each server that takes writes."""
    if is_cluster(redis):
        return list(await redis.ready_primaries())
    return [redis]


async def keys_of_servers(redis: Any, key: str) -> Sequence[str]:
    """Return a key of each server that takes writes. Each begins with this key."""
    if not is_cluster(redis):
        return [key]
    primaries = await redis.ready_primaries()
    keys: dict[str, str] = {}
    for number in range(SLOTS):
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
    options: list[Any] = ["MATCH", pattern, "COUNT", KEYS_AT_ONCE]
    if type:
        options += ["TYPE", type]
    for server in await servers(redis):
        async for names in _pages_of_server(server, options):
            yield names


async def _pages_of_server(
    server: Any,
    options: Sequence[Any],
) -> AsyncIterator[list[str]]:
    """Yield the keys of one server, until SCAN has come round to its beginning."""
    is_next = True
    scan_cursor = 0
    while is_next:
        with redis_errors():
            answer = await server.execute_command("SCAN", scan_cursor, *options)
        scan_cursor, names = answer
        is_next = scan_cursor != 0
        yield names


async def execute_writes(redis: Any, pipe: Any, replicas: int) -> list[Any]:
    """Execute a pipeline of writes; return its answers once so many replicas have them.

    Too few replicas are an error in place of each answer. To apply twice is to apply once.
    """
    wait = Wait(replicas)
    if is_cluster(redis):
        pipe.let_replicas_have(wait)
        return list(await pipe.execute(raise_on_error=False))
    for command in wait.commands:
        pipe.execute_command(*command)
    # redis-py connects anew after some errors, if it raises them.
    answers = await pipe.execute()
    size = len(answers) - len(wait.commands)
    return wait.check(answers[:size], answers[size:])
