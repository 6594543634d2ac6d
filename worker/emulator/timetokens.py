"""PubNub's time: 17 digits, ten-millionths of a second since 1970.

Every recorded timetoken of an action is even.
"""

from collections.abc import Callable
from typing import Final

TICKS_PER_SECOND: Final = 10_000_000
TICKS_PER_MILLISECOND: Final = 10_000

Clock = Callable[[], float]
"""Returns Unix time in seconds. A simulation has a clock of its own."""


class Timetokens:
    """A clock in timetokens, which never goes back."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead = 0
        self._latest = 0
        self._last_unique = 0

    def now(self) -> int:
        """Return the present, an even number. It can repeat."""
        ticks = int(self._clock() * TICKS_PER_SECOND) + self._ahead
        self._latest = max(self._latest, ticks & ~1)
        return self._latest

    def unique(self) -> int:
        """Return the present, larger than every earlier unique timetoken."""
        self._last_unique = max(self.now(), self._last_unique + 2)
        return self._last_unique

    def advance(self, seconds: float) -> None:
        """Let time pass at once, for the emulator alone."""
        if seconds < 0:
            raise ValueError(f"time does not go back: cannot advance by {seconds} seconds")
        self._ahead += int(seconds * TICKS_PER_SECOND)
