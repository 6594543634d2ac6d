"""Which node of a Redis Cluster each command goes to, and what its replies mean.

Nothing here does I/O.

redis-py's own pipelines of a cluster are not used.
They look up the keys of each command, so that a page costs nine times as much.
In an event loop they start a thread for each command of a transaction.
While a node is away, they may repeat a thousand commands one by one.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, compress, groupby, repeat
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
_BROKEN: Final = (
    RedisConnectionError,
    RedisTimeoutError,
    OSError,
    SlotNotCoveredError,
)
_HOPELESS: Final = (
    AuthenticationError,
    AuthorizationError,
    MaxConnectionsError,
)
_LATE: Final = (
    RedisTimeoutError,
    TimeoutError,
)
PASSING: Final = (
    AskError,
    TryAgainError,
    ClusterDownError,
)
"""What a node answers while slots move, or while another node is not replaced yet."""
_PLACES_OF_KEYS: Final = {"EVAL": 3, "EVALSHA": 3}
"""Of the first key; of all other commands it stands behind the name."""
_ASKING: Final = ("ASKING",)
_WITHOUT_KEY: Final = "SCRIPT"
"""Such a command goes where the next one goes."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """Commands for one node, on one connection."""

    node: Any
    places: Sequence[int]
    """Where in the request each command stands."""
    commands: Sequence[Command]

    @property
    def lines(self) -> Sequence[Command]:
        """What is sent."""
        return self.commands

    def replies(self, received: Sequence[Any]) -> Sequence[Any]:
        """Return the reply to each command."""
        return received


class AskingParcel(Parcel):
    """For a node that is about to get a slot: it serves only those who ask so."""

    @property
    def lines(self) -> Sequence[Command]:
        """What is sent."""
        pairs = zip(repeat(_ASKING), self.commands, strict=False)
        return [*chain.from_iterable(pairs)]

    def replies(self, received: Sequence[Any]) -> Sequence[Any]:
        """Return the reply to each command."""
        return received[1::2]


class Transaction(Parcel):
    """Commands of one instant."""

    @property
    def lines(self) -> Sequence[Command]:
        """What is sent."""
        return [
            ("MULTI",),
            *self.commands,
            ("EXEC",),
        ]

    def replies(self, received: Sequence[Any]) -> Sequence[Any]:
        """Return the reply to each command.

        If the node did not take one of them, its reason is the reply to all.
        """
        *queued, result = received
        if isinstance(result, ExecAbortError):
            refused = of_kinds(queued, ResponseError)
            result = next(refused, result)
        if isinstance(result, Exception):
            return [result] * len(self.commands)
        replies: Sequence[Any] = result
        return replies


@dataclass(slots=True)
class Delivery:
    """A request on its way.

    It only reads, so it is sent again as a whole: then its replies are of one time.
    """

    request: Request
    is_done: bool = False
    is_lost: bool = False
    """Whether it must be learned anew which node has which slots."""
    moved: Sequence[MovedError] = ()
    """What nodes said about slots that are elsewhere."""
    _replies: Sequence[Any] = ()
    _asked: dict[int, AskError] = field(default_factory=dict)
    """Commands whose keys have left for a node that does not have the slot yet."""

    def parcels(self, client: Any) -> Sequence[Parcel]:
        """Return what each node is sent, in the order of their names.

        Threads that wait for connections in one order never wait in a ring.
        """
        commands = self.request.commands
        if self.request.is_atomic:
            node = client.get_node_from_key(key_of(commands[0]))
            everything = range(len(commands))
            return [Transaction(node, everything, commands)]
        return self._sorted(client)

    def _sorted(self, client: Any) -> Sequence[Parcel]:
        kinds: dict[tuple[str, type[Parcel]], Any] = {}
        keys = _keys(self.request.commands)
        for place, key in enumerate(keys):
            kind, node = self._node(client, place, key)
            parcel = kind(node, [], [])
            parcel = kinds.setdefault((node.name, kind), parcel)
            parcel.places.append(place)
            parcel.commands.append(self.request.commands[place])
        return sorted(kinds.values(), key=attrgetter("node.name"))

    def _node(
        self,
        client: Any,
        place: int,
        key: Any,
    ) -> tuple[type[Parcel], Any]:
        """Return how a command is sent, and to which node."""
        error = self._asked.get(place)
        if error:
            node = client.get_node(error.host, error.port)
            if node:
                return AskingParcel, node
        return Parcel, client.get_node_from_key(key)

    def take(
        self,
        parcels: Iterable[Parcel],
        received: Iterable[Sequence[Any]],
    ) -> None:
        """Take what was received; note what must be learned before the next try."""
        replies: dict[int, Any] = {}
        for parcel, lines in zip(parcels, received, strict=True):
            pairs = zip(
                parcel.places,
                parcel.replies(lines),
                strict=True,
            )
            replies.update(pairs)
        in_order = map(replies.__getitem__, range(len(replies)))
        self._note([*in_order])

    def _note(self, replies: Sequence[Any]) -> None:
        self._replies = replies
        self.moved = [*of_kinds(replies, MovedError)]
        down = of_kinds(replies, ClusterDownError)
        passing = of_kinds(replies, *PASSING)
        self.is_lost = any(down)
        self.is_done = not any(passing)
        for place, reply in enumerate(replies):
            self._note_asked(place, reply)

    def _note_asked(self, place: int, reply: Any) -> None:
        # MOVED is a kind of ASK.
        if isinstance(reply, MovedError):
            self._asked.pop(place, None)
        elif isinstance(reply, AskError):
            self._asked[place] = reply

    def fail(self, error: Exception) -> None:
        """Note that a connection failed.

        Who has waited in vain does not wait again.
        """
        self.is_lost = True
        self.is_done = isinstance(error, _LATE)
        self.moved = ()
        self._replies = [error]

    def result(self) -> Sequence[Any]:
        """Return the replies after the last try.

        Raises:
            RedisUnavailableError: the slot of a key is on its way.
            RedisError: no connection came about.
        """
        failed = of_kinds(
            self._replies,
            *PASSING,
            *_BROKEN,
        )
        match next(failed, None):
            case None:
                return self._replies
            case AskError() | TryAgainError():
                raise RedisUnavailableError(
                    "The Redis Cluster moves the slot of a key to another node. Try again."
                )
            case error:
                raise error


def is_broken(error: Exception) -> bool:
    """Tell whether an error is one of a connection, after which another try may help."""
    is_of_connection = isinstance(error, _BROKEN)
    return is_of_connection and not isinstance(error, _HOPELESS)


def broken_reply(received: Iterable[Sequence[Any]]) -> Any:
    """Return the error of a connection that broke between two replies; None if none did."""
    replies = chain.from_iterable(received)
    broken = of_kinds([*replies], *_BROKEN)
    return next(broken, None)


def of_kinds(
    replies: Collection[Any],
    *kinds: type[Exception],
) -> Iterator[Any]:
    """Return the replies that are such errors."""
    are_such = map(isinstance, replies, repeat(kinds))
    return compress(replies, are_such)


def _keys(commands: Sequence[Command]) -> Iterator[Any]:
    """Yield a key of each command, or of the next one."""
    later = chain(commands[1:], commands[-1:])
    for command, next_command in zip(commands, later, strict=True):
        is_without = command[0] == _WITHOUT_KEY
        yield key_of(next_command if is_without else command)


def key_of(command: Command) -> Any:
    """Return the first key of a command; an empty one if it has none."""
    name = str(command[0])
    place = _PLACES_OF_KEYS.get(name, 1)
    return next(iter(command[place:]), "")


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
    in_order = sorted(keys, key=slot_of)
    for _, group in groupby(in_order, slot_of):
        of_slot = [*group]
        if size >= most:
            trips.append([])
            size = 0
        trips[-1].append(of_slot)
        size += len(of_slot)
    return trips


def slot_of(key: str) -> int:
    """Return the slot of a key."""
    slot: int = key_slot(key.encode())
    return slot
