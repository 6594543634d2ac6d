"""Places in PubNub's time: timetokens, and the cursor a subscription reads from."""

from dataclasses import dataclass
from typing import Final

Timetoken = str
"""Decimal digits, 17 in PubNub's own: ten-millionths of a second since 1970. Too many for a float, hence text."""

TICKS_PER_SECOND: Final = 10_000_000
TICKS_PER_MILLISECOND: Final = 10_000


def order(timetoken: Timetoken) -> tuple[int, str]:
    """Return the sort key of a timetoken: its length, then its digits."""
    return len(timetoken), timetoken


def is_after(left: Timetoken, right: Timetoken) -> bool:
    """Tell whether ``left`` is strictly newer than ``right``."""
    return order(left) > order(right)


def shift(timetoken: Timetoken, ticks: int) -> Timetoken:
    """Return the timetoken that many ten-millionths of a second later (earlier, if negative; never below 1)."""
    return str(max(1, int(timetoken) + ticks))


def milliseconds(timetoken: Timetoken) -> int:
    """Return the timetoken as milliseconds since 1970."""
    return int(timetoken) // TICKS_PER_MILLISECOND


def from_seconds(seconds: float) -> Timetoken:
    """Return the timetoken of a Unix time in seconds."""
    return str(max(1, int(seconds * TICKS_PER_SECOND)))


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a subscription's next read begins: PubNub's ``t.t`` and ``t.r``, kept verbatim, never computed."""

    timetoken: Timetoken
    region: int


HANDSHAKE: Final = Cursor("0", 0)
"""Asks PubNub for the present: the answer carries a cursor and no messages."""


@dataclass(frozen=True, slots=True)
class Range:
    """A stretch of actions: from ``since`` (inclusive; None: the very first) to ``until`` (exclusive; None: now)."""

    since: Timetoken | None = None
    until: Timetoken | None = None

    def covers(self, timetoken: Timetoken) -> bool:
        """Tell whether an action of that timetoken lies in it."""
        is_early = self.since is not None and is_after(self.since, timetoken)
        return not is_early and (self.until is None or is_after(self.until, timetoken))
