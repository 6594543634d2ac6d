"""What a client missed: from the positions it has to the heads of the journals."""

from collections.abc import Mapping
from typing import Final

from reaction_tally.changes import read_heads, read_journals
from reaction_tally.following import Following, Item
from reaction_tally.operations import GroupedOperation, Operations
from reaction_tally.values import Reset

MAX_ROUND_TRIPS: Final = 100
"""Of 100 entries of each channel. Whoever missed more than that had better read a page."""


def read_positions(
    operations: Operations, channels: tuple[str, ...]
) -> GroupedOperation[dict[str, str]]:
    """Return the position of each channel as of now."""
    yield from operations.check()
    return (yield from read_heads(operations, channels))


def read_missed(operations: Operations, since: Mapping[str, str]) -> GroupedOperation[list[Item]]:
    """Return what has changed since these positions.

    A channel of which too much was missed is reset, as is one whose journal does not reach back.
    """
    heads = yield from read_positions(operations, tuple(since))
    following = Following(operations.keys, since, is_open=False)
    following.note_heads(heads)
    items: list[Item] = []
    while following.is_behind:
        readings = following.readings()
        yield from read_journals(operations, readings, MAX_ROUND_TRIPS)
        for reading in readings:
            is_short = reading.is_done
            found = following.finish(reading)
            items += found if is_short else [Reset(reading.channel, heads[reading.channel])]
    return items
