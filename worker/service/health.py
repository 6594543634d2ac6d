"""What can be asked about a running worker: is it alive, is it ready, what is it at, and what do its figures say."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import product
from typing import Any, Final, TypeVar

from worker import __version__
from worker.domain.action import Origin
from worker.domain.entry import Outcome
from worker.domain.position import TICKS_PER_SECOND, Timetoken
from worker.errors import RedisUnavailableError, TallyError
from worker.history.backfill_queue import BackfillQueue
from worker.live.subscription import State, Subscription
from worker.live.subscriptions import Subscriptions
from worker.reconciliation.reconcile import Reconciler
from worker.source.client import OPERATIONS
from worker.source.live import LONGEST_ANSWER_SECONDS
from worker.store.pending_repairs import GapCause
from worker.store.progress import Progress
from worker.store.tables import Tables
from worker.telemetry import metrics
from worker.telemetry.health import as_json, examine
from worker.telemetry.http import Answer, Page, health_page, json_page, metrics_page

Result = TypeVar("Result")

COUNTING_SECONDS: Final = 5.0
"""How long what only Redis knows may take to be put together; of ten thousand channels it is a tenth of a second."""
LISTED: Final = 1_000
"""How many of anything a status names."""


class Health:
    """Looks at the parts of a worker; changes nothing."""

    def __init__(
        self,
        subscriptions: Subscriptions,
        backfill_queue: BackfillQueue,
        reconciler: Reconciler,
        tables: Tables,
        clock: Callable[[], float],
        settings: Sequence[Mapping[str, object]],
    ) -> None:
        """``settings`` are what is in force, secrets masked."""
        self._subscriptions = subscriptions
        self._backfill_queue = backfill_queue
        self._reconciler = reconciler
        self._tables = tables
        self._clock = clock
        self._settings = settings
        self._started_at = clock()
        self._has_caught_up = False
        self._turn = asyncio.Lock()  # who looks at every channel does so alone, however many ask
        self.pages: Mapping[str, Answer] = {
            "/livez": self.livez,
            "/readyz": self.readyz,
            "/metrics": self.metrics,
            "/status": self.status,
        }
        metrics.build.info({"version": __version__})
        _begin_at_nothing()

    async def livez(self) -> Page:
        """Tell whether the loops turn; whether Redis or PubNub answer is another question."""
        return health_page(await examine({"loops": self._loops}))

    async def readyz(self) -> Page:
        """Tell whether the counts can be relied on to be of now."""
        return health_page(await self._readiness())

    async def metrics(self) -> Page:
        """Return every metric; what only Redis knows is of the last time it answered."""
        async with self._turn:
            await self._measure()
            return metrics_page()

    async def status(self) -> Page:
        """Return what the worker is at, for a person."""
        async with self._turn:
            return json_page(await self._tell())

    async def _loops(self) -> str | None:
        stuck = [each.id for each in self._subscriptions.current if each.is_stuck]
        return (
            f"{len(stuck)} subscriptions have stopped turning: {', '.join(stuck[:3])}"
            if stuck
            else None
        )

    async def _readiness(self) -> dict[str, str | None]:
        return await examine(
            {
                "redis": self._redis_answers,
                "subscriptions": self._have_polled,
                "backfill": self._is_caught_up,
            }
        )

    async def _redis_answers(self) -> str | None:
        try:
            await self._tables.server.now()
        except RedisUnavailableError as error:
            return str(error)
        return None

    async def _have_polled(self) -> str | None:
        followed = self._subscriptions.current
        if followed and all(each.is_refused for each in followed):
            return "PubNub refuses every name"
        late = [each for each in followed if not (each.is_refused or self._has_polled(each))]
        return f"{len(late)} of {len(followed)} have no answer of PubNub's" if late else None

    def _has_polled(self, subscription: Subscription) -> bool:
        """Tell whether PubNub has answered in time; one that goes on from a cursor may wait for its first answer."""
        answered_at = subscription.answered_at
        if answered_at is None:
            is_waiting = (
                subscription.resume_point is not None and subscription.state is State.STARTING
            )
            return is_waiting and self._clock() <= subscription.due_at
        return self._clock() - answered_at <= LONGEST_ANSWER_SECONDS

    async def _is_caught_up(self) -> str | None:
        """Tell what the first backfill still lacks; once it is done, a later one is no reason not to be ready."""
        if not self._has_caught_up:
            have_begun = all(each.has_begun for each in self._subscriptions.current)
            self._has_caught_up = have_begun and self._backfill_queue.is_idle
        return None if self._has_caught_up else "the first backfill is not done yet"

    async def _measure(self) -> None:
        subscriptions = self._subscriptions.current
        states = Counter(each.state for each in subscriptions)
        for state in State:
            metrics.subscriptions.labels(state.value).set(states[state])
        metrics.queued.set(sum(each.queued for each in subscriptions))
        listening = [each for each in subscriptions if not each.is_refused]
        ages = [
            self._clock() - each.resume_point.covered_until
            for each in listening
            if each.resume_point
        ]
        metrics.cursor_age.set(max(ages, default=0.0))
        found = await self._readiness()
        for check, wrong in found.items():
            metrics.ready.labels(check).set(wrong is None)
        if not found["redis"]:
            await self._from_redis(self._measure_debts, None)

    async def _measure_debts(self) -> None:
        channels, now = await self._tables.channels.all(), await self._tables.server.now()
        debts = await self._tables.pending.read_all(channels)
        causes = Counter(cause for owed in debts.values() for cause in owed)
        for gap in GapCause:
            metrics.owed.labels(gap.value).set(causes[gap.value])
        oldest = min((at for owed in debts.values() for at in owed.values()), default=now)
        metrics.owed_age.set(max(0, now - oldest) / 1000)
        metrics.channels.set(len(channels))
        metrics.backfills.set(len(await self._tables.progress.read_all(channels)))
        if began := await self._tables.rounds.read():
            metrics.round_began.set(int(began) / TICKS_PER_SECOND)

    async def _from_redis(self, ask: Callable[[], Awaitable[Result]], otherwise: Result) -> Result:
        """Return what Redis knows, if it answers soon."""
        try:
            async with asyncio.timeout(COUNTING_SECONDS):
                return await ask()
        except (
            TimeoutError,
            TallyError,
            ValueError,
        ):  # also where somebody else has written under our names
            return otherwise

    async def _tell(self) -> dict[str, Any]:
        return {
            "version": __version__,
            "up_seconds": round(self._clock() - self._started_at, 1),
            "ready": as_json(await self._readiness()),
            "subscriptions": [
                self._tell_subscription(each) for each in self._subscriptions.current[:LISTED]
            ],
            "last_reconcile": self._tell_reconcile(),
            "redis": await self._from_redis(self._tell_marks, "does not answer"),
            "settings": self._settings,
        }

    def _tell_subscription(self, subscription: Subscription) -> dict[str, Any]:
        now, point = self._clock(), subscription.resume_point
        answered_at = subscription.answered_at
        return {
            "id": subscription.id,
            "state": subscription.state.value,
            "names": subscription.names.all,
            "cursor": point.cursor.timetoken if point else None,
            "cursor_age_seconds": round(now - point.covered_until, 1) if point else None,
            "answered_seconds_ago": round(now - answered_at, 1)
            if answered_at is not None
            else None,
            "queued_answers": subscription.queued,
        }

    def _tell_reconcile(self) -> dict[str, Any] | None:
        if self._reconciler.last is None:
            return None
        ended_at, report = self._reconciler.last
        told = asdict(report) | {
            "result": report.result,
            "seconds_ago": round(self._clock() - ended_at, 1),
        }
        return {name: value for name, value in told.items() if name not in {"failure", "exit_code"}}

    async def _tell_marks(self) -> dict[str, Any] | str:
        channels = await self._tables.channels.all()
        debts, places = (
            await self._tables.pending.read_all(channels),
            await self._tables.progress.read_all(channels),
        )
        began = await self._tables.rounds.read()
        return {
            "channels": len(channels),
            "owed_channels": len(debts),
            "owed": {
                channel: {cause: _moment(at / 1000) for cause, at in owed.items()}
                for channel, owed in sorted(debts.items())[:LISTED]
            },
            "backfills": {
                channel: _progress_status(place)
                for channel, place in sorted(places.items())[:LISTED]
            },
            "last_round": _moment(_seconds(began)) if began else None,
        }


def _begin_at_nothing() -> None:
    """Let counters begin at 0: one that appears with its first event hides that event from whoever counts increases."""
    for origin, outcome in product(Origin, Outcome):
        metrics.events.labels(origin.value, outcome.value)
    for gap in GapCause:
        metrics.gaps.labels(gap.value)
        metrics.repaid.labels(gap.value)
    for event in ("pruned", "restored"):
        metrics.inferred.labels(event)
    for result in ("settled", "unproven", "refused", "failed"):
        metrics.reconciles.labels(result)
    for result in ("done", "failed"):
        metrics.reloads.labels(result)
    for operation, status in product(OPERATIONS.values(), ("200", "403", "429", "none")):
        metrics.pubnub_requests.labels(operation, status)


def _progress_status(place: Progress) -> dict[str, Any]:
    """Say how far back a backfill has come, which goes from now to the oldest action."""
    back_to = None if place.oldest is None else _moment(_seconds(place.oldest))
    return {
        "actions": place.actions,
        "has_come_back_to": _moment(_seconds(place.next)),
        "goes_back_to": back_to,
    }


def _seconds(timetoken: Timetoken) -> float:
    return int(timetoken) / TICKS_PER_SECOND


def _moment(seconds: float) -> str | None:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):  # a stranger's timetoken need not be of our era
        return None
