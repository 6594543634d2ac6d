"""The request budget that all processes of a keyset share."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from redis.asyncio import Redis

from reaction_tally.keys import Keys
from worker.store.redis_retry import RedisRetry
from worker.store.table import Table, retried
from worker.telemetry import metrics
from worker.telemetry.throttled_warning import ThrottledWarning

BURST: Final = 5
"""Requests sent at once after an idle time."""
LONG_WAIT_SECONDS: Final = 10.0
"""A wait that is logged: PubNub asked for it, or very many requests wait."""

log = structlog.get_logger(__name__)


class Budget(Table):
    """Spaces out requests for history.

    All processes on this Redis together send ``rate`` a second. It may change.
    """

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        rate: float,
        retry: RedisRetry | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__(redis, keys, retry)
        self.rate = rate
        self._sleep = sleep
        clock = retry.clock if retry else time.monotonic
        self._warning = ThrottledWarning(log, "budget_waits", "budget_has_room", clock)

    async def take(self) -> None:
        """Return when one request may be sent."""
        wait = await self._take(0) / 1_000_000
        metrics.budget_requests.inc()
        metrics.budget_waited.inc(wait)
        if wait >= LONG_WAIT_SECONDS:
            self._warning.failing(seconds=round(wait))
        if wait:
            await self._sleep(wait)
        else:
            self._warning.recovered()

    async def hold(self, seconds: float) -> None:
        """Let no process send for that long."""
        await self._take(round(seconds * 1_000_000))

    @retried
    async def _take(self, hold_microseconds: int) -> int:
        interval = max(1, round(1_000_000 / self.rate))
        args = (interval, BURST, hold_microseconds)
        return int(await self._call("take_budget", self._keys.budget, *args))
