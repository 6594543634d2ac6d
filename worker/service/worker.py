"""A running worker: what it follows, and what runs beside."""

import asyncio
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from worker.applying.expiry import Expiry
from worker.domain.position import Cursor
from worker.history.backfill_queue import BackfillQueue
from worker.live.assignment import Assignment, assign
from worker.live.covered_channels import CoveredChannels
from worker.live.gaps import Gaps
from worker.live.group_commit import GroupCommit
from worker.live.groups import GroupMembers
from worker.live.resume_point import ResumePoint, SavedPosition
from worker.live.subscription import Subscription, SubscriptionConfig
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
"""Failures in a row after which a channel's reconcile is left for later; some eight minutes."""


@dataclass(frozen=True, slots=True)
class Worker:
    """What runs, and what can be asked about it."""

    service: Service
    health: Health
    reload: Reload


@dataclass(frozen=True, slots=True)
class Repairs:
    """What repairs channels beside live reading."""

    backfill_queue: BackfillQueue
    reconciler: Reconciler
    repair_queue: RepairQueue

    async def request(self, channels: Collection[str], cursor: Cursor | None) -> None:
        """Ask for a backfill up to the cursor, if there is one, and for a reconcile later."""
        if cursor:
            await self.backfill_queue.request(channels, cursor)
        self.repair_queue.note(channels)


async def compose(parts: Parts, followed: Names) -> Worker:
    """Put a worker together."""
    settings, repairs = parts.settings, build_repairs(parts)
    gaps = Gaps(parts.tables, repairs.request)
    size = settings.channels_per_subscription
    create = subscription_factory(parts, gaps)
    subscriptions = Subscriptions(create, await resume(parts, followed, size), size)
    reload = Reload(lambda: followed_names(settings), subscriptions, parts.tables)
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
    backfill_queue = BackfillQueue(build_backfiller(parts, tries=None), parts.tables)
    reconciler = build_reconciler(parts, SERVICE_TRIES)
    repair_queue = RepairQueue(reconciler, parts.tables, parts.settings.settle_seconds, parts.clock)
    return Repairs(backfill_queue, reconciler, repair_queue)


def build_jobs(parts: Parts, repairs: Repairs, reload: Reload) -> list[Job]:
    """Return what runs beside the subscriptions, and is cut off at the end."""
    settings = parts.settings
    rounds = Rounds(
        repairs.reconciler,
        repairs.repair_queue,
        parts.patient_entries,
        parts.tables,
        parts.client.time,
        Schedule(
            settings.reconcile_seconds,
            settings.reconcile_window,
            settings.reconcile_full_seconds,
        ),
    )
    jobs: list[Job] = [
        repairs.backfill_queue.run,
        repairs.repair_queue.run,
        rounds.run,
        reload.run,
        lambda: send_heartbeats(parts),
    ]
    if settings.retention_days:
        jobs.append(Expiry(parts.store, parts.tables).run)
    return jobs


def listen_to_recovery(parts: Parts, repairs: Repairs, subscriptions: Subscriptions) -> None:
    """Repair, and read again, after Redis went back."""
    if parts.recovery:
        parts.recovery.add_listener(repairs.repair_queue.note)
        parts.recovery.add_listener(repairs.backfill_queue.note)
        parts.recovery.add_listener(lambda _: subscriptions.reread())


def hang_up(settings: Settings, reload: Reload) -> Callable[[], None] | None:
    """Return what SIGHUP does; None where it means that the terminal has gone."""
    if settings.channels_file or not sys.stderr.isatty():
        return reload.ask
    return None


def subscription_factory(parts: Parts, gaps: Gaps) -> SubscriptionFactory:
    """Return a function that makes the subscription of an assignment."""
    group_commit = GroupCommit(parts.applier)
    config = SubscriptionConfig(parts.counted_types, parts.settings.catchup_seconds, parts.clock)
    warning = unreachable(parts.clock)

    def create(assignment: Assignment[ResumePoint]) -> Subscription:
        names = assignment.names
        poller = Poller(parts.client, names, new_backoff(), parts.clock, warning)
        covered = CoveredChannels(parts.tables.channels, parts.client, gaps)
        position = SavedPosition(
            names, parts.tables.cursors, parts.applier.rollback_detector, parts.clock
        )
        return Subscription(assignment, poller, group_commit, covered, position, config)

    return create


async def send_heartbeats(parts: Parts) -> None:
    """Keep what is registered in Redis; an idle worker notices so that Redis went back."""
    seconds = min(parts.settings.settle_seconds, HEARTBEAT_SECONDS)
    while True:
        await asyncio.sleep(seconds)
        await parts.tables.cursors.keep_registered()


async def resume(parts: Parts, followed: Names, size: int) -> list[Assignment[ResumePoint]]:
    """Return the names as they were followed last, each with its resume point; new names join."""
    now = parts.clock()
    saved = [
        (
            Names.read(names),
            ResumePoint(digest(names), at.cursor, now - at.age_seconds, at.saves),
        )
        for names, at in await parts.tables.cursors.followed()
    ]
    names_of = {point: names for names, point in saved}
    assignments = assign(followed, saved, size)
    return [_unchanged(assignment, names_of) for assignment in assignments]


def _unchanged(
    assignment: Assignment[ResumePoint], names_of: dict[ResumePoint, Names]
) -> Assignment[ResumePoint]:
    """Drop the resume point of an assignment whose names did not change.

    Such a subscription finds its cursor under its own name, with the number of its saves.
    """
    point = assignment.resume_point
    if point and names_of[point] == assignment.names:
        return Assignment(assignment.names)
    return assignment
