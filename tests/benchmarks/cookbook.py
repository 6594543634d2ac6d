"""The recipes of the client's README as reads of a room, each with its true answer."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from reaction_tally import AsyncTallyReader, Page
from tests.benchmarks.room import (
    LARGE,
    MESSAGES,
    ROOM,
    STARS,
    USERS,
    Room,
    Screen,
    true_counts,
    true_screen,
)

HALL: Final = "hall"
"""A channel in doubt."""
WEIGHTS: Final = {"👍": 1, "😢": -1}
RECENT: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A line of the table in the client's README, as a read."""

    key: str
    what: str
    read: Callable[[AsyncTallyReader, Room], Awaitable[object]]
    truth: Callable[[Room], object]
    plain: Callable[[Any], object] = lambda found: found
    """Makes an answer comparable with the truth."""


async def scores(reader: AsyncTallyReader, _: Room) -> Mapping[str, float]:
    """Return up minus down of each message."""
    page = await reader.page(ROOM, MESSAGES)
    return {timetoken: message.score(WEIGHTS) for timetoken, message in page.messages.items()}


async def averages(reader: AsyncTallyReader, _: Room) -> Mapping[str, float | None]:
    """Return the average of the stars of each message."""
    page = await reader.page(STARS, MESSAGES)
    return {timetoken: message.average() for timetoken, message in page.messages.items()}


def screen(page: Page) -> Screen:
    """Return what all ways to read a page know."""
    return {
        timetoken: {it.value: (it.count, it.mine) for it in message.reactions}
        for timetoken, message in page.messages.items()
    }


def true_scores(room: Room) -> dict[str, float]:
    """Return up minus down of each message."""
    return {
        message: sum(count * WEIGHTS.get(value, 0) for value, (count, _) in values.items())
        for message, values in true_screen(room).items()
    }


def true_averages(room: Room) -> dict[str, float]:
    """Return the average of the stars of each message."""
    return {
        message: sum(int(value) * count for value, count in counts["rating"].items()) / USERS
        for message, counts in true_counts(room.stars).items()
    }


def true_recent(room: Room) -> list[tuple[int, str]]:
    """Return the messages that changed last, newest first."""
    newest = {it.identity.message_timetoken: int(it.published) // 10_000 for it in room.actions}
    return sorted(((at, message) for message, at in newest.items()), reverse=True)[:RECENT]


RECIPES: Final = (
    Recipe(
        key="get",
        what="get",
        read=lambda reader, _: reader.get(ROOM, LARGE),
        truth=lambda room: true_counts(room.actions)[LARGE],
    ),
    Recipe(
        key="many",
        what="get_many of 100",
        read=lambda reader, _: reader.get_many(ROOM, MESSAGES),
        truth=lambda room: true_counts(room.actions),
    ),
    Recipe(
        key="types",
        what="page, one type",
        read=lambda reader, _: reader.page(ROOM, MESSAGES, types=["reaction"]),
        truth=lambda room: true_screen(room, types=["reaction"]),
        plain=screen,
    ),
    Recipe(
        key="mine",
        what="page, what is mine",
        read=lambda reader, room: reader.page(ROOM, MESSAGES, me=room.me),
        truth=lambda room: true_screen(room, room.me),
        plain=screen,
    ),
    Recipe(key="score", what="page, up minus down", read=scores, truth=true_scores),
    Recipe(key="average", what="page, average of stars", read=averages, truth=true_averages),
    Recipe(
        key="recent",
        what=f"recent, {RECENT} messages",
        read=lambda reader, _: reader.recent(ROOM, limit=RECENT),
        truth=true_recent,
        plain=lambda found: [(it.changed_at, it.timetoken) for it in found],
    ),
    Recipe(
        key="channels",
        what="channels",
        read=lambda reader, _: reader.channels(),
        truth=lambda _: {ROOM, STARS},
    ),
    Recipe(
        key="doubt",
        what="in_doubt of two",
        read=lambda reader, _: reader.in_doubt([ROOM, HALL]),
        truth=lambda _: {HALL},
    ),
    Recipe(
        key="check",
        what="check",
        read=lambda reader, _: reader.check(),
        truth=lambda _: None,
    ),
)
