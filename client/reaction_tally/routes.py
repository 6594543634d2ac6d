"""Which node of a Redis Cluster each command goes to, and what its replies mean.

Nothing here does I/O.

redis-py's own pipelines of a cluster are not used.
They look up the keys of each command, so that a page costs nine times as much.
In an event loop they start a thread for each command of a transaction.
While a node is away, they may repeat a thousand commands one by one.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from operator import attrgetter
from typing import Any, Final

from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    ExecAbortError,
    MaxConnectionsError,
    MovedError,
    ResponseError,
    SlotNotCoveredError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from reaction_tally.errors import RedisUnavailableError
from reaction_tally.operations import Command, Request

PAUSES: Final = (0.0, 0.0, 0.05, 0.1, 0.2, 0.4)
"""The pause before each try.

A failover of a dead node takes longer: the caller tries again.
"""
_CONNECTION_ERRORS: Final = (
    RedisConnectionError,
    RedisTimeoutError,
    OSError,
    SlotNotCoveredError,
)
_FINAL_ERRORS: Final = (
    AuthenticationError,
    AuthorizationError,
    MaxConnectionsError,
)
_TIMEOUTS: Final = (
    RedisTimeoutError,
    TimeoutError,
)
TRANSIENT_ERRORS: Final = (
    AskError,
    TryAgainError,
    ClusterDownError,
)
"""What a node answers while slots move, or while another node is not replaced yet."""
_KEY_INDEXES: Final = {"EVAL": 3, "EVALSHA": 3}
"""Of the first key; in all other commands it stands behind the name."""
_ASKING: Final = ("ASKING",)
_WITHOUT_KEY: Final = "SCRIPT"
"""Such a command goes where the next one goes."""


@dataclass(frozen=True, slots=True)
class NodeCommands:
    """Commands for one node, on one connection."""

    node: Any
    indexes: Sequence[int]
    """Where in the request each command stands."""
    commands: Sequence[Command]

    @property
    def to_send(self) -> Sequence[Command]:
        """The commands as the node is sent them."""
        return self.commands

    def replies(self, received: Sequence[Any]) -> Sequence[Any]:
        """Return the reply to each command."""
        return received


class AskingCommands(NodeCommands):
    """For a node that imports a slot: it serves the slot only after ASKING."""

    @property
    def to_send(self) -> Sequence[Command]:
        """Each command after an ASKING."""
        pairs = ((_ASKING, command) for command in self.commands)
        return [*chain.from_iterable(pairs)]

    def replies(self, received: Sequence[Any]) -> Sequence[Any]:
        """Return the reply to each command."""
        return received[1::2]


class Transaction(NodeCommands):
    """Commands of one instant."""

    @property
    def to_send(self) -> Sequence[Command]:
        """The commands between MULTI and EXEC."""
        return [("MULTI",), *self.commands, ("EXEC",)]

    def replies(self, received: Sequence[Any]) -> Sequence[Any]:
        """Return the reply to each command.

        If the node did not take one of them, its reason is the reply to all.
        """
        *queued, result = received
        if isinstance(result, ExecAbortError):
            refused = errors_of(queued, ResponseError)
            result = next(iter(refused), result)
        if isinstance(result, Exception):
            return [result] * len(self.commands)
        replies: Sequence[Any] = result
        return replies


class RoutedRequest:
    """A request, from its first try to its last.

    It only reads, so it is sent again as a whole: then its replies are of one time.
    The slot map is what the client knows: which node has which slots.
    """

    def __init__(self, request: Request) -> None:
        self.is_done = False
        self.is_map_stale = False
        """Whether the slot map must be read again."""
        self.moved: Sequence[MovedError] = ()
        """What nodes said about slots that are elsewhere."""
        self._request = request
        self._replies: Sequence[Any] = ()
        self._asked: dict[int, AskError] = {}
        """Commands whose keys have left for a node that does not have the slot yet."""

    def by_node(self, client: Any) -> Sequence[NodeCommands]:
        """Return what each node is sent, in the order of their names.

        Threads that wait for connections in one order never wait in a ring.
        """
        commands = self._request.commands
        if self._request.is_atomic:
            node = client.get_node_from_key(key_of(commands[0]))
            return [Transaction(node, range(len(commands)), commands)]
        parts: dict[tuple[str, type[NodeCommands]], Any] = {}
        for index, key in enumerate(_keys(commands)):
            kind, node = self._route(client, index, key)
            part = parts.setdefault((node.name, kind), kind(node, [], []))
            part.indexes.append(index)
            part.commands.append(commands[index])
        return sorted(parts.values(), key=attrgetter("node.name"))

    def _route(
        self,
        client: Any,
        index: int,
        key: Any,
    ) -> tuple[type[NodeCommands], Any]:
        """Return how a command is sent, and to which node."""
        error = self._asked.get(index)
        if error:
            node = client.get_node(error.host, error.port)
            if node:
                return AskingCommands, node
        return NodeCommands, client.get_node_from_key(key)

    def take(
        self,
        parts: Iterable[NodeCommands],
        received: Iterable[Sequence[Any]],
    ) -> None:
        """Take what was received; note what must be known before the next try."""
        replies: dict[int, Any] = {}
        for part, of_node in zip(parts, received, strict=True):
            replies.update(zip(part.indexes, part.replies(of_node), strict=True))
        self._replies = [replies[index] for index in sorted(replies)]
        self.moved = errors_of(self._replies, MovedError)
        self.is_map_stale = bool(errors_of(self._replies, ClusterDownError))
        self.is_done = not errors_of(self._replies, *TRANSIENT_ERRORS)
        for index, reply in enumerate(self._replies):
            self._note_asked(index, reply)

    def _note_asked(self, index: int, reply: Any) -> None:
        # MOVED is a kind of ASK.
        if isinstance(reply, MovedError):
            self._asked.pop(index, None)
        elif isinstance(reply, AskError):
            self._asked[index] = reply

    def fail(self, error: Exception) -> None:
        """Note that a connection failed. After a timeout there is no other try."""
        self.is_map_stale = True
        self.is_done = isinstance(error, _TIMEOUTS)
        self.moved = ()
        self._replies = [error]

    def result(self) -> Sequence[Any]:
        """Return the replies after the last try.

        Raises:
            RedisUnavailableError: the slot of a key is on its way.
            RedisError: no connection came about.
        """
        failed = errors_of(self._replies, *TRANSIENT_ERRORS, *_CONNECTION_ERRORS)
        match next(iter(failed), None):
            case None:
                return self._replies
            case AskError() | TryAgainError():
                raise RedisUnavailableError(
                    "The Redis Cluster moves the slot of a key to another node. Try again."
                )
            case error:
                raise error


def is_connection_error(error: Exception) -> bool:
    """Tell whether a connection failed, and another try may help."""
    is_such = isinstance(error, _CONNECTION_ERRORS)
    return is_such and not isinstance(error, _FINAL_ERRORS)


def connection_error(received: Iterable[Sequence[Any]]) -> Any:
    """Return the error of a connection that broke between two replies; None if none did."""
    replies = chain.from_iterable(received)
    return next(iter(errors_of(replies, *_CONNECTION_ERRORS)), None)


def errors_of(replies: Iterable[Any], *kinds: type[Exception]) -> list[Any]:
    """Return the replies that are errors of these kinds."""
    return [reply for reply in replies if isinstance(reply, kinds)]


def _keys(commands: Sequence[Command]) -> Iterator[Any]:
    """Yield a key of each command, or of the next one."""
    later = chain(commands[1:], commands[-1:])
    for command, next_command in zip(commands, later, strict=True):
        is_without = command[0] == _WITHOUT_KEY
        yield key_of(next_command if is_without else command)


def key_of(command: Command) -> Any:
    """Return the first key of a command; an empty one if it has none."""
    name = str(command[0])
    index = _KEY_INDEXES.get(name, 1)
    return next(iter(command[index:]), "")


def by_slot(
    keys: Iterable[str],
    most: int,
) -> Sequence[Sequence[Sequence[str]]]:
    """Return groups of keys that one command may name: those of one slot.

    Groups of some more than ``most`` keys make a round trip.
    Slots are in their order, so neighbours lie on one node.
    """
    trips: list[list[Sequence[str]]] = []
    size = most
    for of_slot in slot_groups(keys):
        if size >= most:
            trips.append([])
            size = 0
        trips[-1].append(of_slot)
        size += len(of_slot)
    return trips


def slot_groups(keys: Iterable[str]) -> list[list[str]]:
    """Return the keys of each slot, in the order of the slots."""
    in_order = sorted(keys, key=slot_of)
    return [[*group] for _, group in groupby(in_order, slot_of)]


def slot_of(key: str) -> int:
    """Return the slot of a key."""
    slot: int = key_slot(key.encode())
    return slot
