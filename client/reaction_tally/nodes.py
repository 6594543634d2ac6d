"""Sends requests to the nodes of a Redis Cluster: in a thread, and in an event loop."""

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import (
    ExitStack,
    contextmanager,
    suppress,
)
from functools import partial
from itertools import repeat, starmap
from operator import attrgetter
from typing import Any, Final

from redis import RedisCluster
from redis.asyncio import RedisCluster as AsyncRedisCluster
from redis.asyncio.cluster import PipelineCommand
from redis.exceptions import (
    MaxConnectionsError,
    ResponseError,
)

from reaction_tally.operations import Request
from reaction_tally.replies import REDIS_ERRORS
from reaction_tally.routes import (
    PAUSES,
    Delivery,
    Parcel,
    broken_reply,
    is_broken,
)

WAIT_SECONDS: Final = 10.0
"""The longest wait for a connection.

It counts where the pool of the client does not wait itself.
"""
LOOK_SECONDS: Final = 0.005
"""How often such a pool is asked."""
LEARN_SECONDS: Final = 2.0
"""The longest wait for what nodes say about slots."""
CLIENTS: Final = (
    RedisCluster,
    AsyncRedisCluster,
)
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
    delivery = Delivery(request)
    for pause in PAUSES:
        time.sleep(pause)
        _try(client, delivery)
        for error in delivery.moved:
            client.nodes_manager.move_slot(error)
        if delivery.is_lost:
            client.nodes_manager.initialize()
        if delivery.is_done:
            break
    return delivery.result()


def _try(client: Any, delivery: Delivery) -> None:
    try:
        parcels = delivery.parcels(client)
        received = _exchange(client, parcels)
        delivery.take(parcels, received)
    except Exception as error:
        if not is_broken(error):
            raise
        delivery.fail(error)


def _exchange(client: Any, parcels: Sequence[Parcel]) -> Received:
    """Send to all nodes before the first reply is read: this takes one round trip."""
    with ExitStack() as opened:
        open_one = partial(_opened, opened, client)
        connections = [*map(open_one, parcels)]
        pairs = [*zip(connections, parcels, strict=True)]
        for connection, parcel in pairs:
            packed = connection.pack_commands(parcel.lines)
            connection.send_packed_command(packed)
        return [*starmap(_read, pairs)]


def _opened(
    opened: ExitStack,
    client: Any,
    parcel: Parcel,
) -> Any:
    redis = client.get_redis_connection(parcel.node)
    connection = _connection(redis.connection_pool)
    return opened.enter_context(connection)


@contextmanager
def _connection(pool: Any) -> Iterator[Any]:
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
        time.sleep(LOOK_SECONDS)
    return pool.get_connection()


def _read(connection: Any, parcel: Parcel) -> Sequence[Any]:
    lines = repeat(connection, len(parcel.lines))
    return [*map(_reply, lines)]


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        return error


async def send_in_loop(client: Any, request: Request) -> Sequence[Any]:
    """Do the same in an event loop."""
    delivery = Delivery(request)
    for pause in PAUSES:
        await asyncio.sleep(pause)
        await _try_in_loop(client, delivery)
        for error in delivery.moved:
            await client.nodes_manager.move_slot(error)
        if delivery.is_lost:
            await client.nodes_manager.initialize()
        if delivery.is_done:
            break
    return delivery.result()


async def _try_in_loop(client: Any, delivery: Delivery) -> None:
    try:
        await client.initialize()
        parcels = delivery.parcels(client)
        received = await _exchange_in_loop(parcels)
        delivery.take(parcels, received)
    except Exception as error:
        if not is_broken(error):
            raise
        delivery.fail(error)


async def _exchange_in_loop(parcels: Sequence[Parcel]) -> Received:
    queues = [*map(_queue, parcels)]
    sendings = map(_send, parcels, queues)
    # All of them end before the next try.
    ends = await asyncio.gather(
        *sendings,
        return_exceptions=True,
    )
    received = [*map(_results, queues)]
    failed = filter(None, ends)
    error = next(failed, broken_reply(received))
    if error:
        raise error
    return received


def _queue(parcel: Parcel) -> Sequence[PipelineCommand]:
    numbered = enumerate(parcel.lines)
    return [PipelineCommand(number, *line) for number, line in numbered]


async def _send(parcel: Parcel, queue: Sequence[PipelineCommand]) -> None:
    await parcel.node.execute_pipeline(queue)


def _results(queue: Sequence[PipelineCommand]) -> Sequence[Any]:
    results = map(attrgetter("result"), queue)
    return [*results]


async def learn_slots(client: Any) -> None:
    """Learn anew which node has which slots, after an answer that did not come."""
    with suppress(*REDIS_ERRORS, TimeoutError):
        async with asyncio.timeout(LEARN_SECONDS):
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
        redis = client.get_redis_connection(node)
        return redis.connection_pool

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
