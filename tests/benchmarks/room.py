"""A chat room from a seed: its messages, and who reacted to them."""

import random
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Final

from reaction_tally import Counts
from worker.domain.action import Added, Identity

ROOM: Final = "room"
STARS: Final = "stars"
"""A channel whose messages get stars, from 1 to 5."""
FIRST: Final = 17_600_000_000_000_000
STEP: Final = 30_000_000
"""Three seconds, in PubNub's ticks."""
MESSAGES: Final = tuple(str(FIRST + STEP * number) for number in range(100))
LARGE: Final = MESSAGES[50]
CROWD: Final = 250
"""Users of the room."""
USERS: Final = 25
"""So many of them react to each message, once each."""
READERS: Final = 5
"""So many of them only say that they have read it."""
VALUES: Final = ("👍", "❤️", "😂", "🎉", "😮", "😢", "🚀", "👀")
RATINGS: Final = ("1", "2", "3", "4", "5")


Screen = dict[str, dict[str, tuple[int, bool]]]
"""message timetoken → value → count, and whether it is mine."""


@dataclass(frozen=True, slots=True)
class Room:
    """The actions of a room, oldest first, and those of the channel with stars."""

    me: str
    actions: tuple[Added, ...]
    stars: tuple[Added, ...]


def room(large: int = USERS) -> Room:
    """Return a room in which one message has so many actions."""
    chance = random.Random(1)
    me, *others = [user(chance) for _ in range(max(CROWD, large))]
    reactions, ratings = list[Identity](), list[Identity]()
    for message in MESSAGES:
        count = large if message == LARGE else USERS
        reactions += reacted(message, [me, *chance.sample(others, count - 1)], chance)
        ratings += rated(message, [me, *chance.sample(others, USERS - 1)], chance)
    chance.shuffle(reactions)
    return Room(me, tuple(dated(reactions, chance)), tuple(dated(ratings, chance)))


def user(chance: random.Random) -> str:
    """Return a user id as applications have it: it compresses badly."""
    return str(uuid.UUID(int=chance.getrandbits(128), version=4))


def reacted(message: str, users: Sequence[str], chance: random.Random) -> Iterator[Identity]:
    """Yield the action of each user, some of them read receipts."""
    weights = [1 / rank for rank in range(1, len(VALUES) + 1)]
    values = chance.choices(VALUES, weights, k=len(users))
    kinds = [*repeat("reaction", len(users) - READERS), *repeat("receipt", READERS)]
    for name, kind, value in zip(users, kinds, values, strict=True):
        yield Identity(ROOM, message, kind, value if kind == "reaction" else "read", name)


def rated(message: str, users: Sequence[str], chance: random.Random) -> Iterator[Identity]:
    """Yield the stars of each user."""
    for name in users:
        yield Identity(STARS, message, "rating", chance.choice(RATINGS), name)


def dated(identities: Sequence[Identity], chance: random.Random) -> Iterator[Added]:
    """Yield the actions with timetokens of their own, all after the last message."""
    begin = int(MESSAGES[-1]) + STEP
    ticks = chance.sample(range(begin, begin + 1000 * STEP), len(identities))
    for identity, tick in zip(identities, sorted(ticks), strict=True):
        yield Added(identity, str(tick), str(tick))


def true_screen(room: Room, me: str | None = None, types: Sequence[str] = ()) -> Screen:
    """Return the counts and what is mine, from the actions themselves."""
    true: Screen = {message: {} for message in MESSAGES}
    for action in room.actions:
        identity = action.identity
        if types and identity.type not in types:
            continue
        values = true[identity.message_timetoken]
        count, is_mine = values.get(identity.value, (0, False))
        values[identity.value] = count + 1, is_mine or identity.uuid == me
    return true


def true_counts(actions: Sequence[Added]) -> dict[str, Counts]:
    """Return message → type → value → count."""
    true: dict[str, Counts] = {message: {} for message in MESSAGES}
    for identity, count in Counter(
        (it.identity.message_timetoken, it.identity.type, it.identity.value) for it in actions
    ).items():
        message, kind, value = identity
        true[message].setdefault(kind, {})[value] = count
    return true
