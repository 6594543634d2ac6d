"""Say that something does not work once a minute, not a thousand times; and once that it works again."""

from collections.abc import Callable
from typing import Any, Final

REPEAT_SECONDS: Final = 60.0


class Complaint:
    """One thing that may go on failing for long."""

    def __init__(self, log: Any, event: str, over: str, clock: Callable[[], float]) -> None:
        self._log = log
        self._event = event
        self._over = over
        self._clock = clock
        self._said_at: float | None = None
        self._failures = 0

    def say(self, **facts: object) -> None:
        """Note a failure; log the first one, then one a minute."""
        self._failures += 1
        now = self._clock()
        if self._said_at is None or now - self._said_at >= REPEAT_SECONDS:
            self._said_at = now
            self._log.warning(self._event, failures=self._failures, **facts)

    def over(self) -> None:
        """Note a success; log it if failures came before."""
        if self._failures:
            self._log.info(self._over, failures=self._failures)
        self._failures, self._said_at = 0, None
