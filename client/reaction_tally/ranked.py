"""The first users of ranked messages, where a page is read in steps."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from reaction_tally.keys import RANKED_ABOVE, Keys, action_timetoken
from reaction_tally.operations import Command
from reaction_tally.replies import pairs
from reaction_tally.rows import Row

COMMANDS: Final = 3
"""Commands of each tally."""
MOST_WHO_KEYS: Final = 2_000
"""Tallies of large messages whose names are read for one page."""
Place = tuple[str, str]
"""A message and one of its tallies."""


class RankedNames:
    """Reads sorted sets. Which ones, the counts of the step before have shown."""

    def __init__(self, keys: Keys, channel: str, names: int) -> None:
        """So many ``names`` of each tally are wanted."""
        self._keys = keys
        self._channel = channel
        self._names = names
        self._places: dict[Place, None] = {}
        """What is read, in this order."""

    def needs(self, timetoken: str, rows: Sequence[Row]) -> bool:
        """Tell whether a message needs more than was read, and note what it needs.

        Of a message with very many values nothing is read, and none of a page beyond its limit.
        """
        places = {(timetoken, row.field): None for row in rows}
        new = places.keys() - self._places.keys()
        is_too_much = len(rows) > RANKED_ABOVE or len(self._places) + len(new) > MOST_WHO_KEYS
        if is_too_much:
            return False
        self._places |= places
        return bool(new)

    def commands(self) -> list[Command]:
        """Return what the next step reads."""
        commands: list[Command] = []
        for timetoken, tally in self._places:
            who = self._keys.who(self._channel, timetoken, tally)
            commands += [
                ("ZCARD", who),
                ("ZRANGE", who, 0, self._names - 1, "WITHSCORES"),
                ("ZRANGE", who, -1, -1, "WITHSCORES"),
            ]
        return commands

    def found(self, replies: Sequence[Any]) -> dict[Place, Sequence[Any]]:
        """Return the replies of each place."""
        return {
            place: replies[COMMANDS * number : COMMANDS * (number + 1)]
            for number, place in enumerate(self._places)
        }


def add_ranked(
    rows: Iterable[Row],
    timetoken: str,
    found: Mapping[Place, Sequence[Any]],
) -> None:
    """Add who reacted first, and when the first and the last one did.

    A sorted set that lacks a user is not believed.
    """
    for row in rows:
        size, first, last = found.get((timetoken, row.field), (0, (), ()))
        if size and size == int(row.count):
            users = pairs(first)
            row.names = [user for user, _ in users]
            row.first_at = action_timetoken(users[0][1])
            row.last_at = action_timetoken(pairs(last)[0][1])
