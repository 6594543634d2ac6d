"""Repeats calls for as long as Redis is away."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import structlog

from worker.errors import RedisReplacedError, RedisUnavailableError
from worker.store.rollback_detector import RollbackDetector
from worker.telemetry import metrics
from worker.telemetry.throttled_warning import ThrottledWarning

FIRST_WAIT_SECONDS: Final = 0.1
LONGEST_WAIT_SECONDS: Final = 5.0
HANG_SECONDS: Final = 5.0
"""A call that takes longer is logged as a failure."""

Result = TypeVar("Result")

log = structlog.get_logger(__name__)


class RedisRetry:
    """Repeats a call until Redis answers.

    A Redis that went back is recovered first.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        rollback_detector: RollbackDetector | None = None,
        recover: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """``recover`` marks what Redis may lack, before a write."""
        self.clock = clock
        self.rollback_detector = rollback_detector or RollbackDetector()
        self._recover = recover
        self._warning = ThrottledWarning(
            log,
            "redis_unavailable",
            "redis_answers_again",
            clock,
        )

    async def call(self, call: Callable[[], Awaitable[Result]]) -> Result:
        """Return what the call returns, once Redis answers it."""
        outage: _Outage | None = None
        try:
            while True:
                try:
                    if self.rollback_detector.is_suspect and self._recover:
                        await self._recover()
                    epoch = self.rollback_detector.epoch
                    result = await self._watched(call)
                    self.rollback_detector.check_epoch(epoch)
                except RedisUnavailableError as error:
                    outage = outage or _Outage(self._warning)
                    await outage.wait(error)
                else:
                    if outage:
                        self._warning.recovered(outage)
                    return result
        finally:
            if outage:
                self._warning.drop(outage)

    async def _watched(self, call: Callable[[], Awaitable[Result]]) -> Result:
        """Return what the call returns; warn meanwhile if that takes too long.

        A Redis that hangs for a while answers in the end, and no call fails.
        """
        caller = object()
        loop = asyncio.get_running_loop()
        timer = loop.call_later(HANG_SECONDS, self._hangs, caller)
        try:
            result = await call()
            self._warning.recovered(caller)
            return result
        finally:
            timer.cancel()
            self._warning.drop(caller)

    def _hangs(self, caller: object) -> None:
        reason = f"Redis has not answered for {HANG_SECONDS:g} s. Is it paused, or very busy?"
        self._warning.failing(caller, reason=reason)


class _Outage:
    """The failures of one call, and longer and longer waits after them."""

    def __init__(self, warning: ThrottledWarning) -> None:
        self._warning = warning
        self._seconds = FIRST_WAIT_SECONDS

    async def wait(self, error: RedisUnavailableError) -> None:
        """Note a failure, and wait."""
        metrics.redis_failures.inc()
        # A server that was replaced is logged by the recovery.
        if not isinstance(error, RedisReplacedError):
            self._warning.failing(self, reason=str(error))
        await asyncio.sleep(self._seconds)
        self._seconds = min(LONGEST_WAIT_SECONDS, self._seconds * 2)
