"""Builds a running worker."""

import asyncio
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from worker import __version__
from worker.domain.shards import Share
from worker.live.assignment import Assignment, assign
from worker.live.channel_groups import GroupMembers
from worker.live.gaps import CoveredChannels, Gaps
from worker.live.group_commit import GroupCommit
from worker.live.polling import Polling
from worker.live.subscription import Subscription
from worker.live.subscription_cursor import ReadCursor, ResumePoint, SubscriptionCursor
from worker.live.subscriptions import SubscriptionFactory, Subscriptions
from worker.reconciliation.repair_queue import RepairQueue
from worker.reconciliation.rounds import Rounds
from worker.service.backlog import BacklogReader
from worker.service.configured import configured_names, followed_names
from worker.service.file_limit import ensure_files
from worker.service.health import Health
from worker.service.history_rate import HistoryRate
from worker.service.lifecycle import Job, Reload, Service
from worker.service.parts import (
    Parts,
    build_expiry,
    build_reconciler,
    build_repair_steps,
    new_backoff,
    new_random,
    schedule,
)
from worker.service.redis_check import RedisCheck
from worker.settings import Settings, masked, sites_of
from worker.source.live import Poller
from worker.source.names import Names
from worker.source.reachability import Reachability, unreachable
from worker.store.cursors import digest
from worker.telemetry import metrics

HEARTBEAT_SECONDS: Final = 10.0
CURSORS_SECONDS: Final = 60.0
"""The cursors get a sign of life so often. There may be hundreds."""
TOKEN_SECONDS: Final = 10.0
"""The file of the token is read this often."""
SERVICE_TRIES: Final = 20
"""Failures in a row after which a reconcile is put off."""


@dataclass(frozen=True, slots=True)
class Worker:
    """What runs, and the pages about it."""

    service: Service
    health: Health
    reload: Reload


class FollowedNames:
    """The names that a worker follows, as they were read last."""

    def __init__(self, names: Names, settings: Settings, share: Share | None = None) -> None:
        self._settings = settings
        self._share = share or Share()
        self._channels = frozenset(names.channels)

    def read(self) -> Names:
        """Return the names to follow, read again.

        Raises:
            ConfigurationError: the list cannot be read; nothing changes.
        """
        configured = followed_names(self._settings)
        names = configured.of_shard(self._settings.shard)
        ensure_files(
            names,
            self._settings.channels_per_subscription,
            has_sites=bool(sites_of(self._settings)),
        )
        self._channels = frozenset(names.channels)
        self._share.configure(configured.channels, configured.wildcards)
        return names

    def has_channel(self, channel: str) -> bool:
        """Tell whether a channel is followed by its own name."""
        return channel in self._channels


class Repairs:
    """What repairs channels while the subscriptions run."""

    def __init__(self, parts: Parts, followed: FollowedNames) -> None:
        settings = parts.settings
        self.reconciler = build_reconciler(parts, SERVICE_TRIES, is_worker=True)
        steps = build_repair_steps(parts, self.reconciler, SERVICE_TRIES)
        self.queue = RepairQueue(steps, parts.tables, followed.has_channel)
        self.rounds = Rounds(
            self.reconciler,
            self.queue,
            parts.tables,
            parts.pubnub_clock.now,
            replace(schedule(settings), shards=parts.share.count),
            new_random(),
        )


async def compose(parts: Parts, followed: Names, *, allow_eviction: bool = False) -> Worker:
    """Build a worker that follows these names."""
    settings = parts.settings
    size = settings.channels_per_subscription
    names = FollowedNames(followed, settings, parts.share)
    repairs = Repairs(parts, names)
    parts.tables.pending.add_listener(repairs.queue.nudge)
    gaps = Gaps(parts.tables, repairs.queue.request)
    assignments = await resume(parts, followed, size)
    await begin_use(parts, assignments)
    create = subscription_factory(parts, gaps)
    subscriptions = Subscriptions(create, assignments, size)
    read = names.read if settings.channels_file else None
    rate = HistoryRate(settings, parts.budget, repairs.rounds)
    reload = Reload(read, rate.reload, subscriptions, parts.tables)
    if parts.recovery:
        parts.recovery.add_listener(repairs.queue.note)
        parts.recovery.add_listener(lambda _: subscriptions.restart_if_redis_went_back())

    backlog = BacklogReader(parts.probe_tables, parts.clock, allow_eviction=allow_eviction)
    jobs: list[Job] = [
        repairs.queue.run,
        repairs.rounds.run,
        repairs.reconciler.repaid.run,
        reload.run,
        build_expiry(parts).run,
        partial(send_heartbeats, parts, backlog.redis, subscriptions),
    ]
    if followed.groups:
        jobs.append(GroupMembers(followed.groups, parts.client, gaps).run)

    if settings.auth_token_file:
        jobs.append(partial(renew_token, parts))

    # On a terminal SIGHUP only means that it was closed.
    can_reload = settings.channels_file or not sys.stderr.isatty()
    hang_up = reload.ask if can_reload else None
    service = Service(subscriptions, jobs, settings.drain_seconds, hang_up)
    metrics.build.info({"version": __version__, "redis_namespace": settings.namespace})
    metrics.shards.labels(parts.share.index).set(parts.share.count)
    health = Health(
        subscriptions,
        repairs.queue.backfills,
        repairs.rounds,
        backlog,
        parts.clock,
        partial(describe, parts),
    )
    return Worker(service, health, reload)


def describe(parts: Parts) -> dict[str, Any]:
    """Return what ``/status`` says of token and settings, without secrets."""
    end = parts.client.token.end
    return {
        "shard": masked.show("TALLY_SHARD", parts.settings),
        "token": end.as_json(time.time()) if end else None,
        "settings": masked.as_json(parts.settings)["settings"],
    }


def subscription_factory(parts: Parts, gaps: Gaps) -> SubscriptionFactory:
    """Return a function that creates the subscription of an assignment."""
    clock = parts.clock
    tables, detector = parts.tables, parts.applier.rollback_detector
    group_commit = GroupCommit(parts.applier)
    catchup_seconds = parts.settings.catchup_seconds
    warning = unreachable(clock)

    def read_cursor_of(names: Names) -> ReadCursor | None:
        """Return what reads a cursor of a cluster."""
        if parts.shard_doubts is None:
            return None
        named = frozenset(names.channels)

        async def covered() -> Collection[str]:
            return named | await tables.channels.all() if names.wildcards or names.groups else named

        return partial(parts.shard_doubts.read_cursor, covered=covered)

    def create(assignment: Assignment[ResumePoint]) -> Subscription:
        names = assignment.names
        reachability = Reachability(new_backoff(), clock, warning)
        poller = Poller(parts.client, names, reachability, clock)
        return Subscription(
            assignment,
            Polling(poller, parts.counted_types, clock),
            group_commit,
            CoveredChannels(names, tables.channels, parts.client, gaps, catchup_seconds),
            SubscriptionCursor(names, tables.cursors, detector, clock, read_cursor_of(names)),
        )

    return create


async def send_heartbeats(
    parts: Parts,
    redis: RedisCheck,
    subscriptions: Subscriptions,
) -> None:
    """Keep the names registered, and the namespace claimed.

    So even an idle worker notices that Redis went back, was emptied,
    or may evict tallies now.
    """
    seconds = min(parts.settings.settle_seconds, HEARTBEAT_SECONDS)
    detector = parts.retry.rollback_detector
    named = configured_names(parts.settings).channels
    cursors = parts.tables.cursors
    cursors_due_at = parts.clock()
    while True:
        await asyncio.sleep(seconds)
        if not await parts.retry.call(parts.ownership.is_held):
            detector.suspect("Redis lacks the claim of this process")
        # Nobody forgets a channel that is named in the settings.
        is_known = named and detector.acknowledged.channels
        if is_known and not await parts.tables.channels.count():
            detector.suspect("Redis lacks all channels ever seen")
        await cursors.keep_registered()
        if parts.clock() >= cursors_due_at:
            cursors_due_at = parts.clock() + CURSORS_SECONDS
            followed = [item.id for item in subscriptions.current]
            await cursors.keep_followed(followed)
        # It logs what it finds. Nobody may ask for the pages.
        await redis.fitness_problem()


async def renew_token(parts: Parts) -> None:
    """Use a new token soon after it is in its file, not only after a refusal."""
    while True:
        await asyncio.sleep(TOKEN_SECONDS)
        await parts.client.token.renew()


async def begin_use(
    parts: Parts,
    assignments: Sequence[Assignment[ResumePoint]],
) -> None:
    """Register a subscription, note all as followed, and make sure that the claim still stands.

    Until then nothing shows that the namespace is used:
    another worker, with other settings, may have claimed it since.

    Raises:
        RedisUnfitError: another worker has.
    """
    for assignment in assignments[:1]:
        names = assignment.names.all
        await parts.tables.cursors.register(digest(names), names)
    await parts.retry.call(parts.ownership.is_held)
    # PubNub's first answer may take minutes. The names have a worker before it.
    followed = [digest(assignment.names.all) for assignment in assignments]
    await parts.tables.cursors.keep_followed(followed)


async def resume(
    parts: Parts,
    followed: Names,
    size: int,
) -> list[Assignment[ResumePoint]]:
    """Return the subscriptions as they were, each with its resume point.

    New names join them, or begin subscriptions of their own.
    """
    now = parts.clock()
    saved: dict[ResumePoint, Names] = {}
    for names, at in await parts.tables.cursors.followed():
        covered_until = now - at.age_seconds
        point = ResumePoint(digest(names), at.cursor, covered_until, at.saves, at.signs)
        saved[point] = Names.read(names)
    pairs = [(names, point) for point, names in saved.items()]
    assignments = assign(followed, pairs, size)
    for number, assignment in enumerate(assignments):
        left = assignment.resume_point
        # A subscription with the same names finds its cursor under its own name.
        if left and saved[left] == assignment.names:
            assignments[number] = Assignment(assignment.names)
    return assignments
