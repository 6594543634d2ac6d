"""To which node of a Redis Cluster each command of a pipeline goes.

Nothing here does I/O. The client's ``routes`` have what one node is sent.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from types import MappingProxyType
from typing import Any, Final

from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from reaction_tally.routes import (
    TRANSIENT_ERRORS,
    AskingCommands,
    NodeCommands,
    Transaction,
    errors_of,
    is_connection_error,
    key_of,
    slot_of,
)
from worker.store.answers import is_error
from worker.store.replicas import Wait


class Args(tuple[Any, ...]):
    """A command, and the options by which redis-py reads its answer."""

    options: Mapping[str, Any] = MappingProxyType({})


class ParsedTransaction(Transaction):
    """Commands of one slot and one instant.

    Their replies are read as redis-py reads them.
    """

    def replies(self, received: Sequence[Any]) -> Sequence[Any]:
        """Return the reply to each command.

        If the transaction was refused, the reason is the reply to all.
        """
        replies = super().replies(received)
        return list(map(self._parse, self.commands, replies))

    def _parse(self, command: Any, reply: Any) -> Any:
        """Return what redis-py makes of a reply."""
        callback = self.node.response_callbacks.get(command[0])
        if callback is None or is_error(reply):
            return reply
        return callback(reply, **command.options)


Route = tuple[Any, type[NodeCommands], int]
"""A node, how it is sent a command, and the slot. Commands of one route go together."""
ANY_SLOT: Final = -1
"""Commands of several slots go together, unless they are transactions."""


def _any_slot(_: str) -> int:
    return ANY_SLOT


@dataclass(frozen=True, slots=True)
class NodePipeline:
    """What one node is sent on one connection, in one round trip."""

    node: Any
    parts: Sequence[NodeCommands]
    wait: Wait

    @property
    def indexes(self) -> Sequence[int]:
        """Where in the whole pipeline each command stands."""
        indexes = [part.indexes for part in self.parts]
        return [*chain.from_iterable(indexes)]

    @property
    def to_send(self) -> Sequence[Any]:
        """The commands as the node is sent them."""
        commands = [part.to_send for part in self.parts]
        return [*chain.from_iterable(commands), *self.wait.commands]

    def replies(self, received: Sequence[Any]) -> Mapping[int, Any]:
        """Return the reply to each command, by its index."""
        rest = iter(received)
        replies: list[Any] = []
        for part in self.parts:
            of_part = islice(rest, len(part.to_send))
            replies += part.replies([*of_part])
        checked = self.wait.check(replies, [*rest], self.node.name)
        return dict(zip(self.indexes, checked, strict=True))


class RoutedPipeline:
    """A pipeline, from its first try to its last.

    Each command is sent until a node has taken it, and then not again.
    """

    def __init__(
        self,
        commands: Sequence[Args],
        wait: Wait,
        *,
        is_atomic: bool,
    ) -> None:
        """``is_atomic``: the commands of each slot are a transaction."""
        self.moved: Sequence[MovedError] = []
        """What nodes said about slots that are elsewhere."""
        self.is_map_stale = False
        """Whether the slot map must be read again: which node has which slots."""
        self._commands = commands
        self._replies: dict[int, Any] = dict.fromkeys(range(len(commands)))
        self._pending: Sequence[int] = range(len(commands))
        self._asked: Mapping[int, AskError] = {}
        """Commands whose keys have left for a node that does not have the slot yet."""
        self._wait = wait
        self._kind: type[NodeCommands] = NodeCommands
        self._slot_of: Callable[[str], int] = _any_slot
        if is_atomic:
            self._kind = ParsedTransaction
            self._slot_of = slot_of

    @property
    def is_done(self) -> bool:
        """Whether every command has its reply."""
        return not self._pending

    @property
    def replies(self) -> Sequence[Any]:
        """The reply to each command, or the error of its last try."""
        return [*self._replies.values()]

    def by_node(self, client: Any) -> Sequence[NodePipeline]:
        """Return what each node is sent now."""
        routes: defaultdict[Route, list[int]] = defaultdict(list)
        for index in self._pending:
            route = self._route(client, index)
            routes[route].append(index)
        parts: defaultdict[Any, list[NodeCommands]] = defaultdict(list)
        for (node, kind, _), indexes in routes.items():
            commands = [self._commands[index] for index in indexes]
            parts[node].append(kind(node, indexes, commands))
        wait = self._wait
        return [NodePipeline(node, of_node, wait) for node, of_node in parts.items()]

    def _route(self, client: Any, index: int) -> Route:
        """Return how a command is sent, and to which node."""
        asked = self._asked.get(index)
        if asked:
            node = client.get_node(asked.host, asked.port)
            return node, AskingCommands, ANY_SLOT
        key = key_of(self._commands[index])
        node = client.get_node_from_key(key)
        return node, self._kind, self._slot_of(key)

    def take(self, replies: Mapping[int, Any]) -> None:
        """Take what a node answered to some commands, by their indexes."""
        self._replies.update(replies)

    def prepare_next_try(self) -> None:
        """Find out what must be sent again, and where."""
        replies = self._replies.items()
        errors = {index: reply for index, reply in replies if _is_transient(reply)}
        asked = {index: error for index, error in errors.items() if _is_ask(error)}
        self._pending = [*errors]
        self._asked = asked
        self.moved = errors_of(errors.values(), MovedError)
        self.is_map_stale = any(map(_makes_map_stale, errors.values()))


def _is_transient(reply: Any) -> bool:
    """Tell whether another try may help. After a timeout there is none."""
    if isinstance(reply, TRANSIENT_ERRORS):
        return True
    return is_connection_error(reply) and not isinstance(reply, RedisTimeoutError)


def _is_ask(error: Exception) -> bool:
    """MOVED is a kind of ASK."""
    return isinstance(error, AskError) and not isinstance(error, MovedError)


def _makes_map_stale(error: Exception) -> bool:
    """Tell whether the node of a slot may be another one than was known."""
    return isinstance(error, ClusterDownError) or is_connection_error(error)
