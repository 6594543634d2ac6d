"""Pipelines of a Redis Cluster: each command goes to the node of its key, all at once.

The client's ``routes`` say where, and what a reply means. redis-py's own pipelines
take no scripts, cost nine times as much, and start a thread for each command of a transaction.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, groupby, islice
from operator import itemgetter
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from redis.asyncio import RedisCluster
from redis.asyncio.cluster import PipelineCommand
from redis.commands import AsyncCoreCommands
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from reaction_tally.routes import PAUSES, AskingParcel, Parcel, is_broken, key_of, slot_of


class Args(tuple[Any, ...]):
    """A command, and the options by which redis-py reads its answer."""

    options: Mapping[str, Any] = MappingProxyType({})


MULTI: Final = Args(["MULTI"])
EXEC: Final = Args(["EXEC"])


class Wait(NamedTuple):
    """How many replicas must have what a node was sent, and how long that may take."""

    replicas: int
    milliseconds: int

    @property
    def command(self) -> Args:
        """The command that waits."""
        return Args(["WAIT", *self])

    def refusal(self, count: Any) -> Exception | None:
        """Return the error for a write that too few replicas have, or none."""
        if isinstance(count, Exception):
            return count
        if count >= self.replicas:
            return None
        return ResponseError(
            f"NOREPLICAS {count} of {self.replicas} replicas (TALLY_WAIT_REPLICAS) "
            f"had a write within {self.milliseconds} ms"
        )


class Transactions(Parcel):
    """Commands of one node. Those of each slot are one transaction."""

    @property
    def lines(self) -> Sequence[Args]:
        """What is sent."""
        groups = [[MULTI, *group, EXEC] for group in self._groups()]
        return [*chain.from_iterable(groups)]

    def replies(self, received: Sequence[Any]) -> Sequence[Any]:
        """Return the reply to each command; why its transaction was refused, if it was."""
        lines = iter(received)
        replies: list[Any] = []
        for group in self._groups():
            size = len(group)
            _, *queued, result = islice(lines, size + 2)
            if isinstance(result, Exception):
                refused = [reply for reply in queued if isinstance(reply, ResponseError)]
                replies += [next(iter(refused), result)] * size
            else:
                replies += map(self._read, group, result)
        return replies

    def _read(self, command: Args, reply: Any) -> Any:
        """Return what redis-py makes of a reply."""
        callback = self.node.response_callbacks.get(command[0])
        if callback is None or isinstance(reply, Exception):
            return reply
        return callback(reply, **command.options)

    def _groups(self) -> Iterator[Sequence[Any]]:
        for _, group in groupby(self.commands, _slot_of):
            yield list(group)


def _slot_of(command: Sequence[Any]) -> int:
    return slot_of(key_of(tuple(command)))


class Writing:
    """Commands on their way. Each is sent until a node has taken it, and then not again."""

    def __init__(
        self,
        commands: Sequence[Args],
        wait: Wait | None,
        *,
        is_split: bool,
    ) -> None:
        """``is_split``: the commands of each slot are a transaction."""
        self.moved: list[MovedError] = []
        """What nodes said about slots that are elsewhere."""
        self.is_lost = False
        """Whether it must be learned anew which node has which slots."""
        self._commands = commands
        self._replies: list[Any] = [None] * len(commands)
        self._pending: Sequence[int] = range(len(commands))
        self._asked: dict[int, AskError] = {}
        self._wait = wait
        self._is_split = is_split

    @property
    def is_done(self) -> bool:
        """Whether every command has its reply."""
        return not self._pending

    @property
    def replies(self) -> Sequence[Any]:
        """The reply to each command, or the error of its last try."""
        return self._replies

    def parcels(self, client: Any) -> Sequence[Parcel]:
        """Return what each node is sent now."""
        parcels: dict[Any, tuple[Any, list[int], list[Args]]] = {}
        for place in self._in_order():
            command = self._commands[place]
            kind, node = self._way(client, place)
            _, places, commands = parcels.setdefault((node, kind), (node, [], []))
            places.append(place)
            commands.append(command)
        return [kind(*parcel) for (_, kind), parcel in parcels.items()]

    def _in_order(self) -> Sequence[int]:
        """Return the places of what is to be sent, those of one slot together."""
        if not self._is_split:
            return self._pending
        return sorted(self._pending, key=lambda place: _slot_of(self._commands[place]))

    def _way(self, client: Any, place: int) -> tuple[type[Parcel], Any]:
        """Return how a command is sent, and to which node."""
        asked = self._asked.pop(place, None)
        node = client.get_node(asked.host, asked.port) if asked else None
        if node:
            return AskingParcel, node
        kind = Transactions if self._is_split else Parcel
        return kind, client.get_node_from_key(key_of(self._commands[place]))

    def lines(self, parcel: Parcel) -> Sequence[Any]:
        """Return what is sent to a node."""
        if self._wait:
            return [*parcel.lines, self._wait.command]
        return parcel.lines

    def take(self, parcel: Parcel, received: Sequence[Any]) -> None:
        """Take what a node answered."""
        replies = parcel.replies(received[: len(parcel.lines)])
        refusal = self._wait.refusal(received[-1]) if self._wait else None
        for place, reply in zip(parcel.places, replies, strict=True):
            is_error = isinstance(reply, Exception)
            self._replies[place] = reply if is_error else refusal or reply

    def fail(self, parcel: Parcel, error: Exception) -> None:
        """Note that the connection to a node failed."""
        for place in parcel.places:
            self._replies[place] = error

    def learn(self) -> None:
        """Find out what must be sent again, and where."""
        errors = {
            place: reply
            for place, reply in enumerate(self._replies)
            if isinstance(reply, Exception)
        }
        self._pending = [place for place, error in errors.items() if _passes(error)]
        again = [errors[place] for place in self._pending]
        self.moved = [error for error in again if isinstance(error, MovedError)]
        self.is_lost = any(not isinstance(error, AskError | TryAgainError) for error in again)
        for place in self._pending:
            error = errors[place]
            # MOVED is a kind of ASK.
            if isinstance(error, AskError) and not isinstance(error, MovedError):
                self._asked[place] = error


def _passes(error: Exception) -> bool:
    """Tell whether another try may help. Who has waited in vain does not wait again."""
    if isinstance(error, AskError | TryAgainError | ClusterDownError):
        return True
    return is_broken(error) and not isinstance(error, RedisTimeoutError)


async def _deliver(client: Any, writing: Writing) -> Sequence[Any]:
    """Send commands until each has its reply, or for some tries."""
    for pause in PAUSES:
        await asyncio.sleep(pause)
        await client.initialize()
        sendings = [_send(writing, parcel) for parcel in writing.parcels(client)]
        # All of them end before the next try.
        await asyncio.gather(*sendings)
        writing.learn()
        for error in writing.moved:
            await client.nodes_manager.move_slot(error)
        if writing.is_lost:
            await client.aclose()
        if writing.is_done:
            break
    return writing.replies


def options_of(line: Sequence[Any]) -> Mapping[str, Any]:
    """Return how redis-py reads an answer. The client's own lines have no options."""
    return line.options if isinstance(line, Args) else {}


async def _send(writing: Writing, parcel: Parcel) -> None:
    lines = enumerate(writing.lines(parcel))
    queue = [PipelineCommand(number, *line, **options_of(line)) for number, line in lines]
    try:
        await parcel.node.execute_pipeline(queue)
    except (RedisError, OSError) as error:
        writing.fail(parcel, error)
    else:
        writing.take(parcel, [command.result for command in queue])


class ClusterPipeline(AsyncCoreCommands):
    """Commands with keys of any slots, as a pipeline of redis-py takes them."""

    def __init__(self, client: RedisCluster, *, is_split: bool) -> None:
        """``is_split``: the commands of each slot are a transaction."""
        self._client: Any = client
        self._is_split = is_split
        self._queue: list[Args] = []
        self._split: dict[int, list[list[int]]] = {}
        """Place of an MGET in the queue → the places of its keys, slot by slot."""
        self._wait: Wait | None = None

    def let_replicas_have(self, wait: Wait) -> None:
        """Let replicas have what is written."""
        self._wait = wait

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Add a command. Its key says where it goes; without one any node will do."""
        command = Args(args)
        command.options = options
        self._queue.append(command)
        return self

    def mget(self, keys: Any, *_: Any) -> Any:
        """Ask for the values of keys of any slots. They are not read at one instant."""
        slots: defaultdict[int, list[int]] = defaultdict(list)
        for place, key in enumerate(keys):
            slots[slot_of(key)].append(place)
        self._split[len(self._queue)] = list(slots.values())
        for places in slots.values():
            self.execute_command("MGET", *(keys[place] for place in places))
        return self

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send all commands; return their answers, in order.

        Raises:
            RedisError: no connection came about, or slots are on their way;
                or, unless that is an answer, a command was refused.
        """
        queue, split = self._queue, self._split
        self._queue, self._split = [], {}
        writing = Writing(queue, self._wait, is_split=self._is_split)
        answers = await _deliver(self._client, writing)
        for answer in answers:
            if raise_on_error and isinstance(answer, Exception):
                raise answer
        return _whole(answers, split)


def _whole(answers: Sequence[Any], split: Mapping[int, Sequence[Sequence[int]]]) -> list[Any]:
    """Return the answers, those of each MGET as one."""
    rest = iter(answers)
    whole: list[Any] = []
    at = 0
    for answer in rest:
        parts = split.get(at)
        at += len(parts or [answer])
        whole.append(_joined(answer, rest, parts) if parts else answer)
    return whole


def _joined(first: Any, others: Iterator[Any], parts: Sequence[Sequence[int]]) -> Any:
    """Return the answer of an MGET, whose parts are the next answers; or the error of one."""
    answers = [first, *islice(others, len(parts) - 1)]
    for answer in answers:
        if isinstance(answer, Exception):
            return answer
    values = zip(chain(*parts), chain(*answers), strict=True)
    return [value for _, value in sorted(values, key=itemgetter(0))]
