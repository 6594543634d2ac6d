"""Pipelines of a Redis Cluster: each command goes to the node of its key, all at once.

redis-py's own pipelines take no scripts, cost nine times as much,
and start a thread for each command of a transaction.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain, groupby, islice
from operator import itemgetter
from typing import Any, Final, NamedTuple

from redis.asyncio import RedisCluster
from redis.asyncio.cluster import PipelineCommand
from redis.commands import AsyncCoreCommands
from redis.exceptions import RedisError

from reaction_tally.routes import PAUSES, slot_of
from worker.store.answers import first_error, raise_error
from worker.store.cluster_shipments import Args, PipelineDelivery, Shipment
from worker.store.replicas import Wait


class Part(NamedTuple):
    """Commands in a row that one call has added, and how their answers become one."""

    size: int
    join: Callable[[Sequence[Any]], Any]


ONE: Final = Part(1, itemgetter(0))
"""A command whose answer stays as it is."""


class ClusterPipeline(AsyncCoreCommands):
    """Commands with keys of any slots, as a pipeline of redis-py takes them."""

    def __init__(self, client: RedisCluster, *, is_split: bool) -> None:
        """``is_split``: the commands of each slot are a transaction."""
        self._client: Any = client
        self._is_split = is_split
        self._queue: list[Args] = []
        self._parts: list[Part] = []
        self._wait = Wait()

    def let_replicas_have(self, wait: Wait) -> None:
        """Let replicas have what is written."""
        self._wait = wait

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Add a command. Its key says where it goes; without one any node will do."""
        command = Args(args)
        command.options = options
        self._queue.append(command)
        self._parts.append(ONE)
        return self

    def mget(self, keys: Any, *_: Any) -> Any:
        """Ask for the values of keys of any slots. They are not read at one instant."""
        in_order = sorted(keys, key=slot_of)
        groups = [[*group] for _, group in groupby(in_order, slot_of)]
        self._queue += [Args(["MGET", *group]) for group in groups]
        join = partial(_values, keys, in_order)
        self._parts.append(Part(len(groups), join))
        return self

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send all commands; return their answers, in order.

        Raises:
            RedisError: no connection came about, or slots are on their way;
                or, unless that is an answer, a command was refused.
        """
        queue, parts = self._queue, self._parts
        self._queue, self._parts = [], []
        delivery = PipelineDelivery(queue, self._wait, is_split=self._is_split)
        replies = iter(await _deliver(self._client, delivery))
        answers = [join([*islice(replies, size)]) for size, join in parts]
        if raise_on_error:
            raise_error(answers)
        return answers


def _values(
    keys: Sequence[str],
    in_order: Sequence[str],
    answers: Sequence[Any],
) -> Any:
    """Return the values of keys, or an error. The answers have them in another order."""
    error = first_error(answers)
    if error:
        return error
    values = chain.from_iterable(answers)
    value_of = dict(zip(in_order, values, strict=True))
    return [value_of[key] for key in keys]


async def _deliver(client: Any, delivery: PipelineDelivery) -> Sequence[Any]:
    """Send commands until each has its reply, or for some tries."""
    for pause in PAUSES:
        await asyncio.sleep(pause)
        await _try(client, delivery)
        await _learn(client, delivery)
        if delivery.is_done:
            break
    return delivery.replies


async def _try(client: Any, delivery: PipelineDelivery) -> None:
    """Send what has no reply yet. All connections end before the next try."""
    await client.initialize()
    shipments = delivery.shipments(client)
    received = await asyncio.gather(*map(_send, shipments))
    for replies in received:
        delivery.take(replies)


async def _learn(client: Any, delivery: PipelineDelivery) -> None:
    """Learn from the replies which node has which slots."""
    delivery.learn()
    for error in delivery.moved:
        await client.nodes_manager.move_slot(error)
    if delivery.is_lost:
        await client.aclose()


async def _send(shipment: Shipment) -> Mapping[int, Any]:
    """Return the reply to the command of each place; or why the connection failed."""
    lines = enumerate(shipment.lines)
    queue = [PipelineCommand(number, *line, **_options_of(line)) for number, line in lines]
    try:
        await shipment.node.execute_pipeline(queue)
    except (RedisError, OSError) as error:
        return dict.fromkeys(shipment.places, error)
    return shipment.replies([command.result for command in queue])


def _options_of(line: Sequence[Any]) -> Mapping[str, Any]:
    """Return how redis-py reads an answer. The client's own lines have no options."""
    return getattr(line, "options", {})
