"""Pipelines of a Redis Cluster, as the store uses them: redis-py's, with what these lack."""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from operator import itemgetter
from typing import Any, Final, cast

from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterNode, ClusterPipeline
from redis.commands import AsyncCoreCommands
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ExecAbortError,
    MovedError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

Command = tuple[tuple[Any, ...], Mapping[str, Any]]
"""A command, and how redis-py reads its answer."""

_OLD_MAP: Final = (
    AskError,
    ClusterDownError,
    MovedError,
    OSError,
    RedisConnectionError,
    RedisTimeoutError,
)
"""Errors after which the client asks anew where the slots are."""


class ScriptPipeline(ClusterPipeline):
    """redis-py's pipeline. It also takes scripts by their digest, the time, and MGET."""

    def __init__(self, client: RedisCluster) -> None:
        super().__init__(client)
        self._split: dict[int, list[list[int]]] = {}
        """Place of an MGET in the pipeline → the places of its keys, slot by slot."""

    def time(self, **options: Any) -> Any:
        """Ask one of the nodes for the time."""
        return self.execute_command("TIME", **options)

    def evalsha(self, sha: str, numkeys: int, *keys_and_args: Any) -> Any:
        """Call a script; its first key says where."""
        return self.execute_command("EVALSHA", sha, numkeys, *keys_and_args)

    def mget(self, keys: Any, *_: Any) -> Any:
        """Ask for the values of keys of any slots. They are not read at one instant."""
        slots: defaultdict[int, list[int]] = defaultdict(list)
        for place, key in enumerate(keys):
            slots[self.cluster_client.keyslot(key)].append(place)
        self._split[len(self)] = list(slots.values())
        for places in slots.values():
            self.execute_command("MGET", *(keys[place] for place in places))
        return self

    async def execute(self, raise_on_error: bool = True, allow_redirections: bool = True) -> Any:
        """Send all commands; return their answers, in order."""
        split, self._split = self._split, {}
        answers = iter(await super().execute(raise_on_error, allow_redirections))
        whole: list[Any] = []
        at = 0
        for answer in answers:
            parts = split.get(at)
            at += len(parts or [1])
            whole.append(_joined(answer, answers, parts) if parts else answer)
        return whole


def _joined(first: Any, others: Iterator[Any], parts: Sequence[Sequence[int]]) -> Any:
    """Return the answer of an MGET, whose parts are the next answers; or the error of one."""
    answers = [first, *islice(others, len(parts) - 1)]
    for answer in answers:
        if isinstance(answer, Exception):
            return answer
    values = zip(chain(*parts), chain(*answers), strict=True)
    return [value for _, value in sorted(values, key=itemgetter(0))]


class SlotTransactions(AsyncCoreCommands):
    """Commands with keys of any slots. Those of one slot are one transaction.

    redis-py's own runs each command in a thread, and takes one slot only.
    """

    def __init__(self, client: RedisCluster) -> None:
        self._client = client
        self._queue: list[Command] = []

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Add a command. Its first argument is a key; without one it goes with the first slot."""
        self._queue.append((args, options))
        return self

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send all commands; return their answers, in order."""
        commands, self._queue = self._queue, []
        await self._client.initialize()
        answers: list[Any] = [None] * len(commands)
        try:
            await asyncio.gather(*self._sendings(commands, answers))
        except _OLD_MAP:
            await self._client.aclose()
            raise
        if raise_on_error:
            _raise_first(answers)
        return answers

    def _sendings(
        self,
        commands: Sequence[Command],
        answers: list[Any],
    ) -> Iterable[Any]:
        """Return what sends to each node. It fills in the answers."""
        slots: defaultdict[int, list[int]] = defaultdict(list)
        for number, (args, _) in enumerate(commands):
            slot = self._client.keyslot(args[1]) if len(args) > 1 else next(iter(slots))
            slots[slot].append(number)
        of_nodes: defaultdict[ClusterNode, list[list[int]]] = defaultdict(list)
        for slot, numbers in slots.items():
            node = self._client.nodes_manager.get_node_from_slot(slot)
            of_nodes[node].append(numbers)
        for node, transactions in of_nodes.items():
            yield _send(node, transactions, commands, answers)


async def _send(
    node: ClusterNode,
    transactions: Collection[Sequence[int]],
    commands: Sequence[Command],
    answers: list[Any],
) -> None:
    """Send transactions to a node. Each is the numbers of its commands."""
    connection = cast("Any", node.acquire_connection())
    try:
        packed: list[tuple[Any, ...]] = []
        for numbers in transactions:
            packed += [("MULTI",), *(commands[number][0] for number in numbers), ("EXEC",)]
        await connection.send_packed_command(connection.pack_commands(packed))
        failures = [
            await _receive(connection, node, numbers, commands, answers) for numbers in transactions
        ]
    finally:
        node.release(connection)
    for failure in filter(None, failures):
        raise failure


async def _receive(
    connection: Any,
    node: ClusterNode,
    numbers: Sequence[int],
    commands: Sequence[Command],
    answers: list[Any],
) -> RedisError | None:
    """Receive the answers of one transaction; return why it was not carried out."""
    refusals: list[ResponseError] = []
    for _ in range(1 + len(numbers)):
        try:
            await connection.read_response()
        except ResponseError as error:
            refusals.append(error)
    try:
        results = await connection.read_response()
    except ExecAbortError as error:
        return refusals[0] if refusals else error
    for number, result in zip(numbers, results, strict=True):
        args, options = commands[number]
        read = node.response_callbacks.get(args[0])
        is_answer = read and not isinstance(result, Exception)
        answers[number] = read(result, **options) if is_answer else result
    return None


def _raise_first(answers: Iterable[Any]) -> None:
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
