"""What each node of a Redis Cluster is sent, and what its replies mean.

Nothing here does I/O.

The client's ``routes`` have the parcels: commands of one node that belong together.
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
    PASSING,
    AskingParcel,
    Parcel,
    Transaction,
    is_broken,
    key_of,
    of_kinds,
    slot_of,
)
from worker.store.answers import is_error
from worker.store.replicas import Wait


class Args(tuple[Any, ...]):
    """A command, and the options by which redis-py reads its answer."""

    options: Mapping[str, Any] = MappingProxyType({})


class WriteTransaction(Transaction):
    """Commands of one slot and one instant.

    Their replies are read as redis-py reads them.
    """

    def replies(self, received: Sequence[Any]) -> Sequence[Any]:
        """Return the reply to each command; why the transaction was refused, if it was."""
        replies = super().replies(received)
        return list(map(self._read, self.commands, replies))

    def _read(self, command: Any, reply: Any) -> Any:
        """Return what redis-py makes of a reply."""
        if is_error(reply):
            return reply
        read = self.node.response_callbacks.get(command[0], _unchanged)
        return read(reply, **command.options)


def _unchanged(reply: Any, **_: Any) -> Any:
    return reply


Route = tuple[Any, type[Parcel], int]
"""A node, how it is sent a command, and the slot.

Commands of the same route make a parcel.
"""
ANY_SLOT: Final = -1
"""Commands of several slots stand together, unless they are transactions."""


def _any_slot(_: str) -> int:
    return ANY_SLOT


@dataclass(frozen=True, slots=True)
class Shipment:
    """What one node is sent on one connection, in one round trip."""

    node: Any
    parcels: Sequence[Parcel]
    wait: Wait

    @property
    def places(self) -> Sequence[int]:
        """Where in the pipeline each command stands."""
        places = [parcel.places for parcel in self.parcels]
        return [*chain.from_iterable(places)]

    @property
    def lines(self) -> Sequence[Any]:
        """What is sent."""
        lines = [parcel.lines for parcel in self.parcels]
        return [*chain.from_iterable(lines), *self.wait.commands]

    def replies(self, received: Sequence[Any]) -> Mapping[int, Any]:
        """Return the reply to the command of each place."""
        rest = iter(received)
        replies: list[Any] = []
        for parcel in self.parcels:
            of_parcel = islice(rest, len(parcel.lines))
            replies += parcel.replies([*of_parcel])
        checked = self.wait.check(replies, [*rest], self.node.name)
        return dict(zip(self.places, checked, strict=True))


class PipelineDelivery:
    """Commands on their way.

    Each is sent until a node has taken it, and then not again.
    """

    def __init__(
        self,
        commands: Sequence[Args],
        wait: Wait,
        *,
        is_split: bool,
    ) -> None:
        """``is_split``: the commands of each slot are a transaction."""
        self.moved: Sequence[MovedError] = []
        """What nodes said about slots that are elsewhere."""
        self.is_lost = False
        """Whether it must be learned anew which node has which slots."""
        self._commands = commands
        self._replies: dict[int, Any] = dict.fromkeys(range(len(commands)))
        self._pending: Sequence[int] = range(len(commands))
        self._asked: Mapping[int, AskError] = {}
        """Commands whose keys have left for a node that does not have the slot yet."""
        self._wait = wait
        self._kind: type[Parcel] = Parcel
        self._slot_of: Callable[[str], int] = _any_slot
        if is_split:
            self._kind = WriteTransaction
            self._slot_of = slot_of

    @property
    def is_done(self) -> bool:
        """Whether every command has its reply."""
        return not self._pending

    @property
    def replies(self) -> Sequence[Any]:
        """The reply to each command, or the error of its last try."""
        return [*self._replies.values()]

    def shipments(self, client: Any) -> Sequence[Shipment]:
        """Return what each node is sent now."""
        routes: defaultdict[Route, list[int]] = defaultdict(list)
        for place in self._pending:
            route = self._route(client, place)
            routes[route].append(place)
        parcels: defaultdict[Any, list[Parcel]] = defaultdict(list)
        for (node, kind, _), places in routes.items():
            commands = [self._commands[place] for place in places]
            parcels[node].append(kind(node, places, commands))
        return [Shipment(node, of_node, self._wait) for node, of_node in parcels.items()]

    def _route(self, client: Any, place: int) -> Route:
        """Return how a command is sent, and to which node."""
        asked = self._asked.get(place)
        node = asked and client.get_node(asked.host, asked.port)
        if node:
            return node, AskingParcel, ANY_SLOT
        key = key_of(self._commands[place])
        node = client.get_node_from_key(key)
        return node, self._kind, self._slot_of(key)

    def take(self, replies: Mapping[int, Any]) -> None:
        """Take what a node answered to the command of each place."""
        self._replies.update(replies)

    def learn(self) -> None:
        """Find out what must be sent again, and where."""
        errors = {place: reply for place, reply in self._replies.items() if _passes(reply)}
        self._pending = [*errors]
        self._asked = {place: error for place, error in errors.items() if _is_ask(error)}
        self.moved = [*of_kinds(errors.values(), MovedError)]
        self.is_lost = any(map(_is_lost, errors.values()))


def _passes(reply: Any) -> bool:
    """Tell whether another try may help.

    Who has waited in vain does not wait again.
    """
    if isinstance(reply, PASSING):
        return True
    return is_broken(reply) and not isinstance(reply, RedisTimeoutError)


def _is_ask(error: Exception) -> bool:
    """MOVED is a kind of ASK."""
    return isinstance(error, AskError) and not isinstance(error, MovedError)


def _is_lost(error: Exception) -> bool:
    """Tell whether the node of a slot is gone, or another one than was known."""
    return isinstance(error, ClusterDownError) or is_broken(error)
