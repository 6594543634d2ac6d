"""The pages about a running worker."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from worker import __version__
from worker.errors import RedisUnavailableError
from worker.history.backfill_queue import BackfillQueue
from worker.live.polling import State
from worker.live.subscription import Subscription
from worker.live.subscriptions import Subscriptions
from worker.reconciliation.reconcile import Reconciler
from worker.service.backlog import read_backlog
from worker.service.gauges import (
    begin_at_zero,
    measure_backlog,
    measure_readiness,
    measure_subscriptions,
)
from worker.service.status import (
    LISTED,
    backlog_status,
    reconcile_status,
    subscription_status,
)
from worker.source.live import LONGEST_ANSWER_SECONDS
from worker.store.tables import Tables
from worker.telemetry import metrics
from worker.telemetry.health import as_json, examine
from worker.telemetry.http import Answer, Page, health_page, json_page, metrics_page


class Health:
    """Answers the pages; changes nothing in the worker."""

    def __init__(
        self,
        subscriptions: Subscriptions,
        backfill_queue: BackfillQueue,
        reconciler: Reconciler,
        tables: Tables,
        clock: Callable[[], float],
        settings: Sequence[Mapping[str, object]],
    ) -> None:
        """``tables`` raise when Redis is away.

        ``settings`` are those in force, with secrets masked.
        """
        self._subscriptions = subscriptions
        self._backfill_queue = backfill_queue
        self._reconciler = reconciler
        self._tables = tables
        self._clock = clock
        self._settings = settings
        self._started_at = clock()
        self._has_caught_up = False
        # Reading every channel is work: one page at a time does it.
        self._turn = asyncio.Lock()
        self.pages: Mapping[str, Answer] = {
            "/livez": self.livez,
            "/readyz": self.readyz,
            "/metrics": self.metrics,
            "/status": self.status,
        }
        metrics.build.info({"version": __version__})
        begin_at_zero()

    async def livez(self) -> Page:
        """Return whether the loops run, even if Redis and PubNub are away."""
        return health_page(await examine({"loops": self._loops}))

    async def readyz(self) -> Page:
        """Return whether the counts are up to date."""
        return health_page(await self._readiness())

    async def metrics(self) -> Page:
        """Return every metric.

        If Redis is away, its part is as old as its last answer.
        """
        async with self._turn:
            await self._measure()
            return metrics_page()

    async def status(self) -> Page:
        """Return what the worker does, for a person."""
        async with self._turn:
            return json_page(await self._status())

    async def _readiness(self) -> dict[str, str | None]:
        return await examine(
            {
                "redis": self._redis_answers,
                "subscriptions": self._have_polled,
                "backfill": self._is_caught_up,
            }
        )

    async def _loops(self) -> str | None:
        subscriptions = self._subscriptions.current
        stuck = [subscription.id for subscription in subscriptions if subscription.polling.is_stuck]
        if not stuck:
            return None
        return f"{len(stuck)} subscriptions have stopped turning: {', '.join(stuck[:3])}"

    async def _redis_answers(self) -> str | None:
        try:
            await self._tables.server.now()
        except RedisUnavailableError as error:
            return str(error)
        return None

    async def _have_polled(self) -> str | None:
        subscriptions = self._subscriptions.current
        if not subscriptions:
            return None
        allowed = [
            subscription
            for subscription in subscriptions
            if not subscription.polling.poller.is_refused
        ]
        if not allowed:
            return "PubNub refuses every name"
        late = [subscription for subscription in allowed if not self._has_polled(subscription)]
        if not late:
            return None
        return f"{len(late)} of {len(subscriptions)} have no answer of PubNub's"

    def _has_polled(self, subscription: Subscription) -> bool:
        """Tell whether PubNub has answered in time."""
        answered_at = subscription.polling.poller.answered_at
        if answered_at is None:
            return self._may_wait(subscription)
        return self._clock() - answered_at <= LONGEST_ANSWER_SECONDS

    def _may_wait(self, subscription: Subscription) -> bool:
        """Tell whether a subscription still waits for its first answer.

        Only one that resumed a cursor may wait.
        """
        if subscription.resume_point is None:
            return False
        is_starting = subscription.polling.state is State.STARTING
        return is_starting and self._clock() <= subscription.polling.poller.due_at

    async def _is_caught_up(self) -> str | None:
        """Check the first backfill; a later one does not matter."""
        if not self._has_caught_up:
            subscriptions = self._subscriptions.current
            have_begun = all(subscription.has_begun for subscription in subscriptions)
            self._has_caught_up = have_begun and self._backfill_queue.is_idle
        return None if self._has_caught_up else "the first backfill is not done yet"

    async def _measure(self) -> None:
        measure_subscriptions(self._subscriptions.current, self._clock())
        readiness = await self._readiness()
        measure_readiness(readiness)
        if readiness["redis"]:
            return
        backlog = await read_backlog(self._tables)
        if backlog:
            measure_backlog(backlog)

    async def _status(self) -> dict[str, Any]:
        readiness = await self._readiness()
        backlog = await read_backlog(self._tables)
        now = self._clock()
        listed = self._subscriptions.current[:LISTED]
        return {
            "version": __version__,
            "up_seconds": round(now - self._started_at, 1),
            "ready": as_json(readiness),
            "subscriptions": [subscription_status(subscription, now) for subscription in listed],
            "last_reconcile": reconcile_status(self._reconciler, now),
            "redis": backlog_status(backlog) if backlog else "does not answer",
            "settings": self._settings,
        }
