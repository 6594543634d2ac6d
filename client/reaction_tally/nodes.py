"""Sends requests to the nodes of a Redis Cluster: in a thread, and in an event loop."""

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final

from redis import RedisCluster
from redis.asyncio import RedisCluster as AsyncRedisCluster
from redis.asyncio.cluster import PipelineCommand
from redis.exceptions import MaxConnectionsError, ResponseError

from reaction_tally.operations import Request
from reaction_tally.replies import REDIS_ERRORS
from reaction_tally.routes import (
    PAUSES,
    NodeCommands,
    RoutedRequest,
    connection_error,
    is_connection_error,
)

WAIT_SECONDS: Final = 10.0
"""The longest wait for a connection.

It counts where the pool of the client does not wait itself.
"""
POLL_SECONDS: Final = 0.005
"""How often such a pool is asked."""
SLOT_MAP_SECONDS: Final = 2.0
"""The longest wait for the slot map: which node has which slots."""
CLIENTS: Final = (RedisCluster, AsyncRedisCluster)
Received = Sequence[Sequence[Any]]


def is_cluster(client: Any) -> bool:
    """Tell whether a client is one of a cluster."""
    return isinstance(client, CLIENTS)


def send(client: Any, request: Request) -> Sequence[Any]:
    """Send commands, each to the node that has its keys; return the replies.

    Raises:
        RedisUnavailableError: slots are on their way.
        RedisError: no connection came about.
    """
    routed = RoutedRequest(request)
    for pause in PAUSES:
        time.sleep(pause)
        _try(client, routed)
        for error in routed.moved:
            client.nodes_manager.move_slot(error)
        if routed.is_map_stale:
            client.nodes_manager.initialize()
        if routed.is_done:
            break
    return routed.result()


def _try(client: Any, routed: RoutedRequest) -> None:
    try:
        parts = routed.by_node(client)
        routed.take(parts, _exchange(client, parts))
    except Exception as error:
        if not is_connection_error(error):
            raise
        routed.fail(error)


def _exchange(client: Any, parts: Sequence[NodeCommands]) -> Received:
    """Send to all nodes before the first reply is read: this takes one round trip."""
    with ExitStack() as stack:
        connections = [stack.enter_context(_connection(client, part.node)) for part in parts]
        pairs = [*zip(connections, parts, strict=True)]
        for connection, part in pairs:
            packed = connection.pack_commands(part.to_send)
            connection.send_packed_command(packed)
        return [[_reply(connection) for _ in part.to_send] for connection, part in pairs]


@contextmanager
def _connection(client: Any, node: Any) -> Iterator[Any]:
    pool = client.get_redis_connection(node).connection_pool
    connection = _free_connection(pool)
    try:
        yield connection
    except BaseException:
        # The next request must not read what this one has left.
        connection.disconnect()
        raise
    finally:
        pool.release(connection)


def _free_connection(pool: Any) -> Any:
    """Wait for a connection. The usual pool of redis-py does not."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        with suppress(MaxConnectionsError):
            return pool.get_connection()
        time.sleep(POLL_SECONDS)
    return pool.get_connection()


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        return error


async def send_in_loop(client: Any, request: Request) -> Sequence[Any]:
    """Do the same in an event loop."""
    routed = RoutedRequest(request)
    for pause in PAUSES:
        await asyncio.sleep(pause)
        await _try_in_loop(client, routed)
        for error in routed.moved:
            await client.nodes_manager.move_slot(error)
        if routed.is_map_stale:
            await client.nodes_manager.initialize()
        if routed.is_done:
            break
    return routed.result()


async def _try_in_loop(client: Any, routed: RoutedRequest) -> None:
    try:
        await client.initialize()
        parts = routed.by_node(client)
        routed.take(parts, await _exchange_in_loop(parts))
    except Exception as error:
        if not is_connection_error(error):
            raise
        routed.fail(error)


async def _exchange_in_loop(parts: Sequence[NodeCommands]) -> Received:
    queues = [*map(_queue, parts)]
    sendings = map(_send, parts, queues)
    # All of them end before the next try.
    ends = await asyncio.gather(*sendings, return_exceptions=True)
    received = [[command.result for command in queue] for queue in queues]
    failed = filter(None, ends)
    error = next(failed, connection_error(received))
    if error:
        raise error
    return received


def _queue(part: NodeCommands) -> Sequence[PipelineCommand]:
    numbered = enumerate(part.to_send)
    return [PipelineCommand(number, *command) for number, command in numbered]


async def _send(part: NodeCommands, queue: Sequence[PipelineCommand]) -> None:
    await part.node.execute_pipeline(queue)


async def refresh_slot_map(client: Any) -> None:
    """Read again which node has which slots, after an answer that did not come."""
    with suppress(*REDIS_ERRORS, TimeoutError):
        async with asyncio.timeout(SLOT_MAP_SECONDS):
            await client.nodes_manager.initialize()


class HintServers:
    """Where to subscribe to hints: a message reaches every node of a cluster."""

    def __init__(self) -> None:
        self._last: Any = None

    def next(self, client: Any) -> Any:
        """Return what knows the connections to a server.

        In a cluster it is another node each time, if there is one.
        """
        if not is_cluster(client):
            return client.connection_pool
        node = self._choose(client)
        return client.get_redis_connection(node).connection_pool

    async def next_in_loop(self, client: Any) -> Any:
        """Do the same in an event loop."""
        if not is_cluster(client):
            return client.connection_pool
        await client.initialize()
        return self._choose(client)

    def _choose(self, client: Any) -> Any:
        nodes = set(client.get_primaries())
        others = nodes.difference([self._last])
        choice = [*(others or nodes)]
        self._last = random.choice(choice)  # noqa: S311 - it spreads connections
        return self._last
