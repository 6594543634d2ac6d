"""The pages about a running worker."""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from hashlib import blake2b
from itertools import filterfalse, product
from typing import Any, Final

from worker import __version__
from worker.domain.action import Origin
from worker.domain.entry import Outcome
from worker.live.polling import State
from worker.live.subscription import Subscription
from worker.live.subscriptions import Subscriptions
from worker.reconciliation.backfills_left import BackfillsLeft
from worker.reconciliation.reconcile import Reconciler
from worker.reconciliation.rounds import Rounds
from worker.service.backlog import Backlog, BacklogReader, rounds_status
from worker.source.client import OPERATIONS
from worker.source.reachability import LONGEST_WAIT_SECONDS
from worker.store.pending_repairs import GapCause
from worker.telemetry import metrics
from worker.telemetry.health import as_json, examine
from worker.telemetry.memory_limit import memory_limit
from worker.web.pages import Answer, Page, health_page, json_page, metrics_page

LISTED: Final = 1_000
"""``/status`` lists so many subscriptions."""
WAITS_FOR_ANSWER: Final = (State.STARTING, State.FOLLOWING, State.UNREACHABLE)
UNREACHABLE_SECONDS: Final = 60.0
"""A shorter failure is no matter for readiness.

PubNub is tried some seven times meanwhile.
"""
DIGEST_BYTES: Final = 6
"""A sample of Prometheus is a float: it holds an integer of 48 bits exactly."""


class Health:
    """Answers the pages; changes nothing in the worker."""

    def __init__(
        self,
        subscriptions: Subscriptions,
        backfills: BackfillsLeft,
        rounds: Rounds,
        backlog: BacklogReader,
        clock: Callable[[], float],
        describe: Callable[[], Mapping[str, object]],
    ) -> None:
        """``describe`` returns more of the status page, without secrets."""
        self._subscriptions = subscriptions
        self._backfills = backfills
        self._rounds = rounds
        self._backlog = backlog
        self._clock = clock
        self._describe = describe
        self._started_at = clock()
        self._has_caught_up = False
        self.pages: Mapping[str, Answer] = {
            "/livez": self.livez,
            "/readyz": self.readyz,
            "/metrics": self.metrics,
            "/status": self.status,
        }
        metrics.memory_limit.set(memory_limit())
        begin_at_zero()

    async def livez(self) -> Page:
        """Return whether the loops run."""
        return health_page(await examine({"loops": self._loops}))

    async def readyz(self) -> Page:
        """Return whether the counts are up to date."""
        return health_page(await self._readiness())

    async def metrics(self) -> Page:
        """Return every metric; if Redis is away, its part is old."""
        measure_subscriptions(self._subscriptions.current, self._clock())
        readiness = await self._readiness()
        for check, problem in readiness.items():
            metrics.ready.labels(check).set(problem is None)
        newest = await self._newest_backlog()
        if newest:
            backlog, age = newest
            backlog.measure(age)
        return metrics_page()

    async def status(self) -> Page:
        """Return what the worker does, for a person."""
        return json_page(await self.facts())

    async def facts(self) -> dict[str, Any]:
        """Return what ``/status`` has."""
        readiness = await self._readiness()
        newest = await self._newest_backlog()
        now = self._clock()
        listed = self._subscriptions.current[:LISTED]
        return {
            "version": __version__,
            "up_seconds": round(now - self._started_at, 1),
            "ready": as_json(readiness),
            "subscriptions": [subscription_status(item, now) for item in listed],
            "last_reconcile": reconcile_status(self._rounds.reconciler, now),
            "rounds": rounds_status(self._rounds.load),
            "redis": backlog_status(newest),
            **self._describe(),
        }

    async def _newest_backlog(self) -> tuple[Backlog, float] | None:
        # A Redis that takes no writes can be read all the same.
        if not self._backlog.redis.is_readable:
            return None
        return await self._backlog.newest()

    async def _readiness(self) -> dict[str, str | None]:
        return await examine(
            {
                "redis": self._backlog.redis.problem,
                "redis_writes": self._backlog.redis.write_problem,
                "redis_fit": self._backlog.redis.fitness_problem,
                "subscriptions": self._have_polled,
                "backfill": self._is_caught_up,
            }
        )

    async def _loops(self) -> str | None:
        subscriptions = self._subscriptions.current
        stuck = [item.id for item in subscriptions if item.polling.is_stuck]
        if not stuck:
            return None
        return f"{len(stuck)} subscriptions have stopped turning: {', '.join(stuck[:3])}"

    async def _have_polled(self) -> str | None:
        subscriptions = self._subscriptions.current
        allowed = [item for item in subscriptions if not item.polling.poller.is_refused]
        if subscriptions and not allowed:
            return _with_cause("PubNub refuses every name", subscriptions)
        late = list(filterfalse(self._has_polled, allowed))
        if not late:
            return None
        missing = f"{len(late)} of {len(subscriptions)} have no answer of PubNub's"
        return _with_cause(missing, late)

    def _has_polled(self, subscription: Subscription) -> bool:
        polling, now = subscription.polling, self._clock()
        poller, reachability = polling.poller, polling.poller.reachability
        since = reachability.failing_since
        if since is not None and now - since > UNREACHABLE_SECONDS:
            return False
        if now - reachability.waiting_since > LONGEST_WAIT_SECONDS:
            return False
        if reachability.answered_at is not None:
            return True
        # Only a subscription that resumed a cursor may wait for its first answer.
        if subscription.resume_point is None or polling.state not in WAITS_FOR_ANSWER:
            return False
        # Its poll is answered when something happens. Other requests show that PubNub answers.
        return poller.contact.has_answered

    async def _is_caught_up(self) -> str | None:
        # Only the first backfill matters.
        if self._has_caught_up:
            return None
        subscriptions = self._subscriptions.current
        if not all(subscription.has_begun for subscription in subscriptions):
            return "not every subscription has a cursor yet"
        problem = self._backfills.problem
        self._has_caught_up = problem is None
        return problem


def _with_cause(problem: str, subscriptions: Iterable[Subscription]) -> str:
    """Add why PubNub does not answer, as far as any request shows it."""
    causes = map(_cause, subscriptions)
    cause = next(filter(None, causes), "")
    return f"{problem}: {cause}" if cause else problem


def _cause(subscription: Subscription) -> str:
    poller = subscription.polling.poller
    return poller.reachability.problem or poller.contact.problem


def subscription_status(subscription: Subscription, now: float) -> dict[str, Any]:
    """Return what a subscription does."""
    point = subscription.resume_point
    polling = subscription.polling
    return {
        "id": subscription.id,
        "state": polling.state.value,
        "names": subscription.names.all,
        "cursor": point.cursor.timetoken if point else None,
        "cursor_age_seconds": _age(point.covered_until if point else None, now),
        "answered_seconds_ago": _age(polling.poller.reachability.answered_at, now),
        "queued_answers": len(polling.queue),
    }


def backlog_status(newest: tuple[Backlog, float] | None) -> dict[str, Any] | str:
    """Return the work that is left, and how long ago it was read."""
    if newest is None:
        return "does not answer"
    backlog, age = newest
    return backlog.as_json() | {"read_seconds_ago": round(age, 1)}


def reconcile_status(reconciler: Reconciler, now: float) -> dict[str, Any] | None:
    """Return the report of the newest reconcile, if one has ended."""
    if reconciler.last is None:
        return None
    ended_at, report = reconciler.last
    status = asdict(report)
    del status["failure"], status["exit_code"]
    return status | {"result": report.result, "seconds_ago": _age(ended_at, now)}


def _age(moment: float | None, now: float) -> float | None:
    return None if moment is None else round(now - moment, 1)


def measure_subscriptions(subscriptions: Sequence[Subscription], now: float) -> None:
    """Set the metrics of the subscriptions."""
    states: Counter[State] = Counter()
    queued = 0
    oldest = now
    names: set[str] = set()
    for subscription in subscriptions:
        polling = subscription.polling
        states[polling.state] += 1
        queued += len(polling.queue)
        names.update(subscription.names.all)
        point = subscription.resume_point
        if point and not polling.poller.is_refused:
            oldest = min(oldest, point.covered_until)
    for state in State:
        metrics.subscriptions.labels(state.value).set(states[state])
    metrics.names.set(len(names))
    metrics.names_digest.set(_digest(names))
    metrics.queued.set(queued)
    metrics.cursor_age.set(now - oldest)


def _digest(names: Collection[str]) -> int:
    """Return a number for these names, the same in every process and in any order.

    One hash of the whole list. A sum of checksums is the same for many lists: for example,
    ``room0, room1`` and ``room2, room3``.
    """
    whole = json.dumps(sorted(names)).encode()
    digest = blake2b(whole, digest_size=DIGEST_BYTES)
    return int.from_bytes(digest.digest())


def begin_at_zero() -> None:
    """Let counters begin at 0, so that Prometheus sees the first event."""
    statuses = ("200", "403", "429", "none")
    series = {
        metrics.events: product(Origin, Outcome),
        metrics.gaps: product(GapCause),
        metrics.repaid: product(GapCause),
        metrics.inferred: product(("pruned", "restored")),
        metrics.reconciles: product(("settled", "unproven", "refused", "failed")),
        metrics.reloads: product(("done", "failed")),
        metrics.pubnub_requests: product(OPERATIONS.values(), statuses),
    }
    for metric, labels in series.items():
        for values in labels:
            metric.labels(*values)
