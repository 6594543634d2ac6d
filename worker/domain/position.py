"""Positions in PubNub's time: timetokens, cursors, ranges."""

from dataclasses import dataclass
from typing import Final

Timetoken = str
"""Ten-millionths of a second since 1970, as decimal digits.

PubNub's own have 17 digits, such as ``17600000001728660``.
A float cannot hold them, hence text.
"""

TICKS_PER_SECOND: Final = 10_000_000
TICKS_PER_MILLISECOND: Final = 10_000


def order(timetoken: Timetoken) -> tuple[int, str]:
    """Return the sort key of a timetoken: its length, then its digits."""
    return len(timetoken), timetoken


def is_after(left: Timetoken, right: Timetoken) -> bool:
    """Tell whether ``left`` is strictly newer than ``right``."""
    return order(left) > order(right)


def shift(timetoken: Timetoken, ticks: int) -> Timetoken:
    """Return a timetoken that many ticks later; earlier, if negative.

    It is never below 1.
    """
    return str(max(1, int(timetoken) + ticks))


def milliseconds(timetoken: Timetoken) -> int:
    """Return the timetoken as milliseconds since 1970."""
    return int(timetoken) // TICKS_PER_MILLISECOND


def from_seconds(seconds: float) -> Timetoken:
    """Return the timetoken of a Unix time in seconds."""
    return str(max(1, int(seconds * TICKS_PER_SECOND)))


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a subscription's next read begins.

    PubNub's ``t.t`` and ``t.r`` are kept as they came, and never computed.
    """

    timetoken: Timetoken
    region: int


HANDSHAKE: Final = Cursor("0", 0)
"""Asks PubNub for the present: the answer has a cursor and no messages."""


@dataclass(frozen=True, slots=True)
class Range:
    """The actions between two timetokens."""

    since: Timetoken | None = None
    """The oldest timetoken, inclusive; None: the very first."""
    until: Timetoken | None = None
    """The newest timetoken, exclusive; None: now."""

    def covers(self, timetoken: Timetoken) -> bool:
        """Tell whether an action of this timetoken is in the range."""
        if self.since is not None and is_after(self.since, timetoken):
            return False

        return self.until is None or is_after(self.until, timetoken)
