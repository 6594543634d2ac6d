"""The parts of the page ``/status``, as JSON."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

from worker.domain.position import TICKS_PER_SECOND, Timetoken
from worker.live.subscription import Subscription
from worker.reconciliation.reconcile import Reconciler
from worker.service.backlog import Backlog
from worker.store.pending_repairs import Marks
from worker.store.progress import Progress

LISTED: Final = 1_000
"""The page lists so many subscriptions, and so many channels."""


def subscription_status(subscription: Subscription, now: float) -> dict[str, Any]:
    """Return what a subscription does; ``now`` is in seconds of the clock."""
    point = subscription.resume_point
    return {
        "id": subscription.id,
        "state": subscription.polling.state.value,
        "names": subscription.names.all,
        "cursor": point.cursor.timetoken if point else None,
        "cursor_age_seconds": _age(point.covered_until if point else None, now),
        "answered_seconds_ago": _age(subscription.polling.poller.answered_at, now),
        "queued_answers": len(subscription.polling.queue),
    }


def _age(moment: float | None, now: float) -> float | None:
    return None if moment is None else round(now - moment, 1)


def reconcile_status(reconciler: Reconciler, now: float) -> dict[str, Any] | None:
    """Return the report of the newest reconcile; None if none has ended."""
    if reconciler.last is None:
        return None
    ended_at, report = reconciler.last
    status = asdict(report)
    del status["failure"], status["exit_code"]
    status["result"] = report.result
    status["seconds_ago"] = _age(ended_at, now)
    return status


def backlog_status(backlog: Backlog) -> dict[str, Any]:
    """Return the work that is left; of the first channels, by name."""
    repairs = sorted(backlog.repairs.items())[:LISTED]
    backfills = sorted(backlog.backfills.items())[:LISTED]
    return {
        "channels": backlog.channels,
        "owed_channels": len(backlog.repairs),
        "owed": {channel: _gap_times(marks) for channel, marks in repairs},
        "backfills": {channel: _progress_status(progress) for channel, progress in backfills},
        "last_round": _utc(backlog.round_began),
    }


def _gap_times(marks: Marks) -> Mapping[str, str | None]:
    return {cause: _utc(at / 1000) for cause, at in marks.items()}


def _progress_status(progress: Progress) -> dict[str, Any]:
    """Return how far a backfill has come, from now to the oldest action."""
    return {
        "actions": progress.actions,
        "has_come_back_to": _moment(progress.next),
        "goes_back_to": _moment(progress.oldest),
    }


def _moment(timetoken: Timetoken | None) -> str | None:
    if timetoken is None:
        return None
    try:
        seconds = int(timetoken) / TICKS_PER_SECOND
    except (ValueError, OverflowError):
        # Another program has written under our keys.
        return None
    return _utc(seconds)


def _utc(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        # A client's timetoken may lie outside of the calendar.
        return None
    return moment.isoformat(timespec="seconds")
