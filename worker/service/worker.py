"""Builds a running worker."""

import asyncio
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Final

from worker.applying.expiry import Expiry
from worker.domain.position import Cursor
from worker.history.backfill_queue import BackfillQueue
from worker.live.assignment import Assignment, assign
from worker.live.channel_groups import GroupMembers
from worker.live.gaps import CoveredChannels, Gaps
from worker.live.group_commit import GroupCommit
from worker.live.polling import Polling
from worker.live.subscription import Subscription
from worker.live.subscription_cursor import ResumePoint, SubscriptionCursor
from worker.live.subscriptions import SubscriptionFactory, Subscriptions
from worker.reconciliation.reconcile import Reconciler
from worker.reconciliation.repair_queue import RepairQueue
from worker.reconciliation.rounds import Rounds, Schedule
from worker.service.health import Health
from worker.service.lifecycle import Job, Service
from worker.service.parts import (
    Parts,
    build_backfiller,
    build_reconciler,
    followed_names,
    new_backoff,
)
from worker.service.reload import Reload
from worker.settings import Settings, masked
from worker.source.live import Poller, unreachable
from worker.source.names import Names
from worker.store.keys import digest
from worker.telemetry import metrics

HEARTBEAT_SECONDS: Final = 10.0
SERVICE_TRIES: Final = 20
"""Failures in a row after which a channel's reconcile is put off.

That takes some eight minutes.
"""


@dataclass(frozen=True, slots=True)
class Worker:
    """What runs, and the pages about it."""

    service: Service
    health: Health
    reload: Reload


@dataclass(frozen=True, slots=True)
class Repairs:
    """What repairs channels while the subscriptions run."""

    backfill_queue: BackfillQueue
    reconciler: Reconciler
    repair_queue: RepairQueue

    async def request(self, channels: Collection[str], cursor: Cursor | None) -> None:
        """Ask for a reconcile, and for a backfill up to the cursor.

        Without a cursor there is no backfill.
        """
        if cursor:
            await self.backfill_queue.request(channels, cursor)
        self.repair_queue.note(channels)


async def compose(parts: Parts, followed: Names) -> Worker:
    """Build a worker that follows these names."""
    settings = parts.settings
    repairs = build_repairs(parts)
    gaps = Gaps(parts.tables, repairs.request)
    size = settings.channels_per_subscription
    create = subscription_factory(parts, gaps)
    assignments = await resume(parts, followed, size)
    subscriptions = Subscriptions(create, assignments, size)
    read_names = partial(followed_names, settings)
    reload = Reload(read_names, subscriptions, parts.tables)
    listen_to_recovery(parts, repairs, subscriptions)
    jobs = build_jobs(parts, repairs, reload)
    if followed.groups:
        jobs.append(GroupMembers(followed.groups, parts.client, gaps).run)
    service = Service(subscriptions, jobs, settings.drain_seconds, hang_up(settings, reload))
    metrics.budget_rate.set(settings.history_rate)
    health = Health(
        subscriptions,
        repairs.backfill_queue,
        repairs.reconciler,
        parts.probe_tables,
        parts.clock,
        masked.as_json(settings)["settings"],
    )
    return Worker(service, health, reload)


def build_repairs(parts: Parts) -> Repairs:
    """Return what repairs channels."""
    backfiller = build_backfiller(parts, tries=None)
    backfill_queue = BackfillQueue(backfiller, parts.tables)
    reconciler = build_reconciler(parts, SERVICE_TRIES)
    repair_queue = RepairQueue(reconciler, parts.tables, parts.settings.settle_seconds, parts.clock)
    return Repairs(backfill_queue, reconciler, repair_queue)


def build_jobs(parts: Parts, repairs: Repairs, reload: Reload) -> list[Job]:
    """Return what runs beside the subscriptions."""
    jobs: list[Job] = [
        repairs.backfill_queue.run,
        repairs.repair_queue.run,
        build_rounds(parts, repairs).run,
        reload.run,
        partial(send_heartbeats, parts),
    ]
    if parts.settings.retention_days:
        jobs.append(Expiry(parts.store, parts.tables).run)
    return jobs


def build_rounds(parts: Parts, repairs: Repairs) -> Rounds:
    """Return the rounds over all channels."""
    settings = parts.settings
    schedule = Schedule(
        settings.reconcile_seconds,
        settings.reconcile_window,
        settings.reconcile_full_seconds,
    )
    return Rounds(
        repairs.reconciler,
        repairs.repair_queue,
        parts.retried_entries,
        parts.tables,
        parts.client.time,
        schedule,
    )


def listen_to_recovery(parts: Parts, repairs: Repairs, subscriptions: Subscriptions) -> None:
    """Let a recovery start repairs, and read cursors again."""
    recovery = parts.recovery
    if recovery:
        recovery.add_listener(repairs.repair_queue.note)
        recovery.add_listener(repairs.backfill_queue.note)
        recovery.add_listener(lambda _: subscriptions.restart_if_redis_went_back())


def hang_up(settings: Settings, reload: Reload) -> Callable[[], None] | None:
    """Return what SIGHUP does; None if it only means a closed terminal."""
    if settings.channels_file or not sys.stderr.isatty():
        return reload.ask
    return None


def subscription_factory(parts: Parts, gaps: Gaps) -> SubscriptionFactory:
    """Return a function that creates the subscription of an assignment."""
    clock = parts.clock
    group_commit = GroupCommit(parts.applier)
    catchup_seconds = parts.settings.catchup_seconds
    warning = unreachable(clock)

    def create(assignment: Assignment[ResumePoint]) -> Subscription:
        names = assignment.names
        poller = Poller(parts.client, names, new_backoff(), clock, warning)
        return Subscription(
            assignment,
            Polling(poller, parts.counted_types, clock),
            group_commit,
            CoveredChannels(names, parts.tables.channels, parts.client, gaps, catchup_seconds),
            subscription_cursor(parts, names),
        )

    return create


def subscription_cursor(parts: Parts, names: Names) -> SubscriptionCursor:
    """Return the saved cursor of the subscription with these names."""
    detector = parts.applier.rollback_detector
    return SubscriptionCursor(names, parts.tables.cursors, detector, parts.clock)


async def send_heartbeats(parts: Parts) -> None:
    """Keep this worker's names registered in Redis.

    So even an idle worker notices that Redis went back.
    """
    seconds = min(parts.settings.settle_seconds, HEARTBEAT_SECONDS)
    while True:
        await asyncio.sleep(seconds)
        await parts.tables.cursors.keep_registered()


async def resume(parts: Parts, followed: Names, size: int) -> list[Assignment[ResumePoint]]:
    """Return the subscriptions as they were, each with its resume point.

    New names join them, or begin subscriptions of their own.
    """
    now = parts.clock()
    saved: list[tuple[Names, ResumePoint]] = []
    for names, at in await parts.tables.cursors.followed():
        covered_until = now - at.age_seconds
        point = ResumePoint(digest(names), at.cursor, covered_until, at.saves)
        saved.append((Names.read(names), point))
    names_of = {point: names for names, point in saved}
    assignments = assign(followed, saved, size)
    return [_unchanged(assignment, names_of) for assignment in assignments]


def _unchanged(
    assignment: Assignment[ResumePoint], names_of: dict[ResumePoint, Names]
) -> Assignment[ResumePoint]:
    """Drop the resume point of an assignment whose names did not change.

    Such a subscription finds its cursor, and the number of its saves,
    under its own name.
    """
    point = assignment.resume_point
    if point and names_of[point] == assignment.names:
        return Assignment(assignment.names)
    return assignment
