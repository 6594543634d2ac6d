"""PubNub's time: 17 digits, ten-millionths of a second since 1970, and always even in what was recorded."""

from collections.abc import Callable
from typing import Final

TICKS_PER_SECOND: Final = 10_000_000
TICKS_PER_MILLISECOND: Final = 10_000

Clock = Callable[[], float]
"""Answers Unix time in seconds. `time.time` for a server, anything monotonic for a simulation."""


class Timetokens:
    """Reads a clock as timetokens, and gives out ones nobody else has.

    Time never goes back here, whatever the clock does: a timetoken given out stays in the past.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead = 0
        self._latest = 0
        self._last_unique = 0

    def now(self) -> int:
        """Return the present, even; it may repeat."""
        self._latest = max(self._latest, (int(self._clock() * TICKS_PER_SECOND) + self._ahead) & ~1)
        return self._latest

    def unique(self) -> int:
        """Return the present, even, and larger than every timetoken given out by this method before."""
        self._last_unique = max(self.now(), self._last_unique + 2)
        return self._last_unique

    def advance(self, seconds: float) -> None:
        """Let that much time pass at once (the emulator's alone: its callers keep their own clocks)."""
        if seconds < 0:
            raise ValueError(f"time does not go back: cannot advance by {seconds} seconds")
        self._ahead += int(seconds * TICKS_PER_SECOND)
