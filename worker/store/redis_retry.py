"""Repeats calls for as long as Redis is away."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

import structlog

from worker.errors import RedisReplacedError, RedisUnavailableError
from worker.store.rollback_detector import RollbackDetector
from worker.telemetry import metrics
from worker.telemetry.throttled_warning import ThrottledWarning

FIRST_WAIT_SECONDS: Final = 0.1
LONGEST_WAIT_SECONDS: Final = 5.0

Result = TypeVar("Result")

log = structlog.get_logger(__name__)


class Recovery(Protocol):
    """What must be done before anything is written to a Redis that went back."""

    async def run(self) -> None:
        """Recover; once for all callers that ask at the same time."""


class RedisRetry:
    """Repeats a call until Redis answers.

    A Redis that went back is recovered first.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        rollback_detector: RollbackDetector | None = None,
        recovery: Recovery | None = None,
    ) -> None:
        """``clock`` gives seconds that never go back."""
        self.clock = clock
        self.rollback_detector = rollback_detector or RollbackDetector()
        self._recovery = recovery
        events = ("redis_unavailable", "redis_answers_again")
        self._warning = ThrottledWarning(log, *events, clock)

    async def call(self, call: Callable[[], Awaitable[Result]]) -> Result:
        """Return what the call returns, once Redis answers it."""
        caller = object()
        try:
            return await self._repeat(call, caller)
        finally:
            self._warning.drop(caller)

    async def _repeat(self, call: Callable[[], Awaitable[Result]], caller: object) -> Result:
        wait = FIRST_WAIT_SECONDS
        while True:
            try:
                if self.rollback_detector.is_suspect and self._recovery:
                    await self._recovery.run()
                result = await call()
            except RedisUnavailableError as error:
                self._count_failure(error, caller)
                await asyncio.sleep(wait)
                wait = min(LONGEST_WAIT_SECONDS, wait * 2)
            else:
                if wait > FIRST_WAIT_SECONDS:
                    self._warning.recovered(caller)
                return result

    def _count_failure(self, error: RedisUnavailableError, caller: object) -> None:
        metrics.redis_failures.inc()
        # A server that was replaced is logged by the recovery.
        if not isinstance(error, RedisReplacedError):
            self._warning.failing(caller, reason=str(error))
