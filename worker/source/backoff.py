"""How long to wait before PubNub is asked again."""

import random
import time
from dataclasses import dataclass, field
from typing import Final

from worker.errors import PubNubError, ThrottledError

FIRST_SECONDS: Final = 0.5
LONGEST_SECONDS: Final = 30.0
MAX_DOUBLINGS: Final = 16


@dataclass(slots=True)
class Backoff:
    """Waits that double from half a second to half a minute, with jitter."""

    random: random.Random
    failures: int = field(default=0, init=False)

    def succeeded(self) -> None:
        """Begin again with the shortest wait."""
        self.failures = 0

    def failed(self, error: PubNubError) -> float:
        """Return the seconds to wait, at least the ``Retry-After`` of a 429."""
        doublings = min(self.failures, MAX_DOUBLINGS)
        self.failures += 1
        longest: float = min(LONGEST_SECONDS, FIRST_SECONDS * 2**doublings)
        wait = longest * self.random.uniform(0.5, 1)
        if isinstance(error, ThrottledError):
            return max(wait, error.retry_after or 0)
        return wait


def elapsed_clock() -> float:
    """Return seconds that never go back, and pass during a suspension, too."""
    # On Linux, CLOCK_MONOTONIC stands still during a suspension.
    # On macOS, it does not, and CLOCK_BOOTTIME does not exist.
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)
