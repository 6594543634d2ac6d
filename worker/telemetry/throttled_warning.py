"""Say that something does not work once a minute, not a thousand times; and once that it works again."""

from collections.abc import Callable
from typing import Any, Final

REPEAT_SECONDS: Final = 60.0


class ThrottledWarning:
    """One thing that may go on failing for long, for one or for many who share it."""

    def __init__(self, log: Any, event: str, over: str, clock: Callable[[], float]) -> None:
        self._log = log
        self._event = event
        self._over = over
        self._clock = clock
        self._said_at: float | None = None
        self._failures = 0
        self._failing: set[object] = set()

    def failing(self, who: object = None, **facts: object) -> None:
        """Note a failure of somebody's; log the first one, then one a minute."""
        self._failures += 1
        self._failing.add(who)
        now = self._clock()
        if self._said_at is None or now - self._said_at >= REPEAT_SECONDS:
            self._said_at = now
            self._log.warning(self._event, failures=self._failures, **facts)

    def recovered(self, who: object = None) -> None:
        """Note a success of theirs; log it where failures came before, and it works for all of them."""
        self._failing.discard(who)
        if self._failing or not self._failures:
            return
        self._log.info(self._over, failures=self._failures)
        self._failures, self._said_at = 0, None

    def drop(self, who: object) -> None:
        """Hear that somebody has given up, or ended: whether it works again is for others to tell."""
        self._failing.discard(who)
