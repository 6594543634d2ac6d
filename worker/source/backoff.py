"""How long to wait before asking PubNub again."""

import random
import time
from dataclasses import dataclass, field
from typing import Final

from worker.errors import PubNubError, ThrottledError

FIRST_SECONDS: Final = 0.5
LONGEST_SECONDS: Final = 30.0


@dataclass(slots=True)
class Backoff:
    """Waits that double from half a second to half a minute, with jitter, and start again after a success."""

    random: random.Random
    failures: int = field(default=0, init=False)

    def succeeded(self) -> None:
        """Start again at the shortest wait."""
        self.failures = 0

    def failed(self, error: PubNubError) -> float:
        """Return the seconds to wait; what PubNub asked for with a 429 is never shortened."""
        wait: float = min(
            LONGEST_SECONDS, FIRST_SECONDS * 2 ** min(self.failures, 16)
        ) * self.random.uniform(0.5, 1)
        self.failures += 1
        asked = error.retry_after if isinstance(error, ThrottledError) else None
        return max(wait, asked or 0)


def elapsed_clock() -> float:
    """Return seconds on a clock that never goes back and counts the time a machine is suspended."""
    # Linux's CLOCK_MONOTONIC stands still in suspension; macOS's counts it.
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)
