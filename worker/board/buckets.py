"""How often something happened, in the last minutes."""

from typing import Final

SECONDS: Final = 10
"""The time of one bucket."""
BUCKETS: Final = 30
"""Five minutes."""
MINUTE: Final = 60 // SECONDS


class Buckets:
    """Counts in steps of ten seconds, for five minutes."""

    __slots__ = ("_counts", "_newest")

    def __init__(self) -> None:
        self._counts = [0] * BUCKETS
        self._newest = 0

    def add(self, now: float, count: int = 1) -> None:
        """Count something that happens now; ``now`` is in seconds."""
        self._advance(now)
        self._counts[-1] += count

    def counts(self, now: float) -> list[int]:
        """Return the counts, oldest first."""
        self._advance(now)
        return list(self._counts)

    def last_minute(self, now: float) -> int:
        """Return how often it happened in the last minute or so."""
        self._advance(now)
        return sum(self._counts[-MINUTE:])

    def _advance(self, now: float) -> None:
        number = int(now // SECONDS)
        steps = min(number - self._newest, BUCKETS)
        if steps > 0:
            self._counts = self._counts[steps:] + [0] * steps
            self._newest = number
