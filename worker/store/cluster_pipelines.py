"""Pipelines of a Redis Cluster: each command goes to the node of its key, all at once.

redis-py's own pipelines take no scripts, cost nine times as much,
and start a thread for each command of a transaction.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain, islice, starmap
from operator import itemgetter
from typing import Any, Final, NamedTuple

from redis.asyncio import RedisCluster
from redis.asyncio.cluster import PipelineCommand
from redis.commands import AsyncCoreCommands
from redis.exceptions import RedisError

from reaction_tally.routes import PAUSES, slot_groups
from worker.store.answers import first_error, raise_error
from worker.store.cluster_routes import Args, NodePipeline, RoutedPipeline
from worker.store.replicas import Wait


class AnswerGroup(NamedTuple):
    """How many answers belong to one call, and how they become one."""

    size: int
    join: Callable[[Sequence[Any]], Any]


SINGLE: Final = AnswerGroup(1, itemgetter(0))
"""The answer to one command, as it is."""


class ClusterPipeline(AsyncCoreCommands):
    """Commands with keys of any slots, as a pipeline of redis-py takes them."""

    def __init__(self, client: RedisCluster, *, is_atomic: bool) -> None:
        """``is_atomic``: the commands of each slot are a transaction."""
        self._client: Any = client
        self._is_atomic = is_atomic
        self._queue: list[Args] = []
        self._groups: list[AnswerGroup] = []
        self._wait = Wait()

    def wait_for_replicas(self, wait: Wait) -> None:
        """Let ``execute`` wait until replicas have the writes."""
        self._wait = wait

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Add a command. Its key says where it goes; without one any node will do."""
        command = Args(args)
        command.options = options
        self._queue.append(command)
        self._groups.append(SINGLE)
        return self

    def mget(self, keys: Any, *_: Any) -> Any:
        """Ask for the values of keys of any slots. They are not read at one instant."""
        groups = slot_groups(keys)
        self._queue += [Args(["MGET", *group]) for group in groups]
        join = partial(_values_in_order, keys, groups)
        self._groups.append(AnswerGroup(len(groups), join))
        return self

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send all commands; return their answers, in order.

        Raises:
            RedisError: with ``raise_on_error``, the first answer that is an error.
        """
        queue, groups = self._queue, self._groups
        self._queue, self._groups = [], []
        routed = RoutedPipeline(queue, self._wait, is_atomic=self._is_atomic)
        replies = iter(await _send_all(self._client, routed))
        answers = [join([*islice(replies, size)]) for size, join in groups]
        if raise_on_error:
            raise_error(answers)
        return answers


def _values_in_order(
    keys: Sequence[str],
    groups: Sequence[Sequence[str]],
    answers: Sequence[Any],
) -> Any:
    """Return the value of each key, or an error.

    Each answer has the values of one group.
    """
    error = first_error(answers)
    if error:
        return error
    grouped_keys = chain.from_iterable(groups)
    values = chain.from_iterable(answers)
    value_of = dict(zip(grouped_keys, values, strict=True))
    return [value_of[key] for key in keys]


async def _send_all(client: Any, routed: RoutedPipeline) -> Sequence[Any]:
    """Send commands until each has its reply, or for some tries."""
    for pause in PAUSES:
        await asyncio.sleep(pause)
        await _try(client, routed)
        await _update_slot_map(client, routed)
        if routed.is_done:
            break
    return routed.replies


async def _try(client: Any, routed: RoutedPipeline) -> None:
    """Send what has no reply yet. All connections end before the next try."""
    await client.initialize()
    sendings = map(_send, routed.by_node(client))
    received = await asyncio.gather(*sendings)
    for replies in received:
        routed.take(replies)
    routed.prepare_next_try()


async def _update_slot_map(client: Any, routed: RoutedPipeline) -> None:
    """Let the client know which node has which slots, as far as the replies say it."""
    for error in routed.moved:
        await client.nodes_manager.move_slot(error)
    if routed.is_map_stale:
        await client.aclose()


async def _send(pipeline: NodePipeline) -> Mapping[int, Any]:
    """Return the reply to each command, by its index; or why the connection failed."""
    queue = [*starmap(_queued, enumerate(pipeline.to_send))]
    try:
        await pipeline.node.execute_pipeline(queue)
    except (RedisError, OSError) as error:
        return dict.fromkeys(pipeline.indexes, error)
    received = [command.result for command in queue]
    return pipeline.replies(received)


def _queued(number: int, args: Sequence[Any]) -> PipelineCommand:
    """Return a command as redis-py takes it.

    ASKING, MULTI and the like have no options.
    """
    options = getattr(args, "options", {})
    return PipelineCommand(number, *args, **options)
