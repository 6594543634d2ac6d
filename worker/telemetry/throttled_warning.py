"""A warning of a failure that lasts: once a minute, not a thousand times; then its end, once."""

from collections.abc import Callable
from typing import Final

from structlog.typing import FilteringBoundLogger

REPEAT_SECONDS: Final = 60.0


class ThrottledWarning:
    """A failure that may last. Several callers may share one warning."""

    def __init__(
        self,
        log: FilteringBoundLogger,
        event: str,
        over: str,
        clock: Callable[[], float],
    ) -> None:
        self._log = log
        self._event = event
        self._over = over
        self._clock = clock
        self._warned_at: float | None = None
        self._failures = 0
        self._failing: set[object] = set()

    def failing(self, caller: object = None, **facts: object) -> None:
        """Note a failure of a caller. Log the first failure, then one a minute."""
        self._failures += 1
        self._failing.add(caller)
        now = self._clock()
        if self._warned_at is None or now - self._warned_at >= REPEAT_SECONDS:
            self._warned_at = now
            self._log.warning(self._event, failures=self._failures, **facts)

    def recovered(self, caller: object = None) -> None:
        """Note a success of a caller. Log the end once no caller fails any more."""
        self._failing.discard(caller)
        if self._failing or not self._failures:
            return
        self._log.info(self._over, failures=self._failures)
        self._failures = 0
        self._warned_at = None

    def drop(self, caller: object) -> None:
        """Forget a caller that has ended. Its end is no success, so nothing is logged."""
        self._failing.discard(caller)
