"""Metrics that are measured at each request for them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product

from worker.domain.action import Origin
from worker.domain.entry import Outcome
from worker.live.polling import State
from worker.live.subscription import Subscription
from worker.service.backlog import Backlog
from worker.source.client import OPERATIONS
from worker.store.pending_repairs import GapCause
from worker.telemetry import metrics


def measure_subscriptions(subscriptions: Sequence[Subscription], now: float) -> None:
    """Measure what the subscriptions do; ``now`` is in seconds of the clock."""
    states = Counter(subscription.polling.state for subscription in subscriptions)
    for state in State:
        metrics.subscriptions.labels(state.value).set(states[state])
    queued = sum(len(subscription.polling.queue) for subscription in subscriptions)
    metrics.queued.set(queued)
    ages = [_cursor_age(subscription, now) for subscription in subscriptions]
    metrics.cursor_age.set(max(ages, default=0.0))


def _cursor_age(subscription: Subscription, now: float) -> float:
    point = subscription.resume_point
    if subscription.polling.poller.is_refused or point is None:
        return 0.0
    return now - point.covered_until


def measure_readiness(checks: Mapping[str, str | None]) -> None:
    """Measure which checks of readiness pass."""
    for check, problem in checks.items():
        metrics.ready.labels(check).set(problem is None)


def measure_backlog(backlog: Backlog) -> None:
    """Measure the work that is left."""
    causes: Counter[str] = Counter()
    for marks in backlog.repairs.values():
        causes.update(marks.keys())
    for cause in GapCause:
        metrics.owed.labels(cause.value).set(causes[cause.value])
    metrics.owed_age.set(backlog.oldest_gap_seconds)
    metrics.channels.set(backlog.channels)
    metrics.backfills.set(len(backlog.backfills))
    if backlog.round_began is not None:
        metrics.round_began.set(backlog.round_began)


def begin_at_zero() -> None:
    """Let counters begin at 0.

    A counter that appears with its first event hides that event:
    Prometheus sees no increase.
    """
    for origin, outcome in product(Origin, Outcome):
        metrics.events.labels(origin.value, outcome.value)
    for cause in GapCause:
        metrics.gaps.labels(cause.value)
        metrics.repaid.labels(cause.value)
    for event in ("pruned", "restored"):
        metrics.inferred.labels(event)
    for result in ("settled", "unproven", "refused", "failed"):
        metrics.reconciles.labels(result)
    for result in ("done", "failed"):
        metrics.reloads.labels(result)
    statuses = ("200", "403", "429", "none")
    for operation, status in product(OPERATIONS.values(), statuses):
        metrics.pubnub_requests.labels(operation, status)
