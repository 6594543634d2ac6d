"""The only place that builds things: what is started, in which order, and how it stops."""

import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import structlog

from worker import __version__
from worker.applying.apply import Applier
from worker.applying.expiry import Expiry
from worker.applying.retry import ProgressWatcher, RetryPolicy, history_warning
from worker.applying.rollback import RollbackRecovery
from worker.domain.position import Cursor, Range
from worker.domain.reconciliation import Limit
from worker.errors import ConfigurationError, ExitCode, TallyError
from worker.history.backfill import Backfiller
from worker.history.backfill_queue import BackfillQueue
from worker.live.assignment import Assignment, assign
from worker.live.gaps import Gaps
from worker.live.groups import GroupMembers
from worker.live.subscription import ResumePoint, Subscription, SubscriptionConfig
from worker.live.subscriptions import Subscriptions
from worker.reconciliation.evidence import Comparison
from worker.reconciliation.reconcile import (
    ReconcileOptions,
    ReconcilePolicy,
    Reconciler,
    ReconcileReport,
)
from worker.reconciliation.repair_queue import RepairQueue
from worker.reconciliation.rounds import Rounds, Schedule
from worker.reconciliation.scan import Scanner
from worker.reconciliation.verify import Sample, Verifier, VerifyReport
from worker.service.doctor import Finding, examine_pubnub, examine_redis, look
from worker.service.health import Health
from worker.service.lifecycle import EarlySignals, Service
from worker.service.reload import Reload
from worker.settings import Settings, masked
from worker.settings.checks import COUNTED, FOLLOW, KEYSET, demand
from worker.source import names
from worker.source.backoff import Backoff, elapsed_clock
from worker.source.client import Client, Keyset
from worker.source.history import History
from worker.source.live import LONGEST_ANSWER_SECONDS, Poller, unreachable
from worker.source.names import Names
from worker.source.wire import CountedTypes
from worker.store.audit import Audit
from worker.store.budget import Budget
from worker.store.connection import unguarded
from worker.store.entries import Entries
from worker.store.keys import Keys, digest
from worker.store.marks import Marks
from worker.store.opened import opened_redis
from worker.store.preflight import Claim, check_fitness, check_namespace, check_ownership
from worker.store.rollback_detector import RollbackDetector
from worker.store.store import Store, Ttls
from worker.telemetry import metrics
from worker.telemetry.http import listening
from worker.telemetry.throttled_warning import ThrottledWarning

COMMAND_TRIES: Final = 6
"""Failures in a row after which a command (not the service) gives up on PubNub; some ten seconds."""

HEARTBEAT_SECONDS: Final = 10.0

SERVICE_TRIES: Final = 20
"""Failures in a row after which a service leaves a channel's reconcile for later; some eight minutes."""

log = structlog.get_logger(__name__)


def keyset(settings: Settings) -> Keyset:
    """Return what it takes to talk to PubNub.

    Raises:
        ConfigurationError: the subscribe key is missing, or something about it is wrong.
    """
    demand(settings, KEYSET)
    assert settings.subscribe_key  # noqa: S101 - for mypy: it was demanded
    return Keyset(
        settings.subscribe_key,
        settings.user_id,
        publish_key=settings.publish_key,
        secret_key=settings.secret_key,
        auth_token=settings.auth_token,
        origin=settings.origin,
        tls=settings.tls,
    )


def configured_names(settings: Settings) -> Names:
    """Return the names to follow.

    Raises:
        ConfigurationError: PubNub would refuse one of them, or the file that lists them cannot be read.
    """
    return Names.of(settings.all_channels(), settings.channel_groups)


def followed_names(settings: Settings) -> Names:
    """Return the names to follow, of which there must be one; all that a worker needs is demanded.

    Raises:
        ConfigurationError: there is none, or something else is wrong; the sentences tell everything.
    """
    demand(settings, FOLLOW.checks)
    return configured_names(settings)


def counted_types(settings: Settings) -> CountedTypes:
    """Return which types are counted.

    Raises:
        ConfigurationError: none is.
    """
    demand(settings, COUNTED)
    return CountedTypes(frozenset(settings.types), frozenset(settings.ignored_types))


def lives(settings: Settings) -> Ttls:
    """Return how long what is kept is kept."""
    retention_seconds = round(settings.retention_days * 86400)
    return Ttls(settings.tombstone_seconds, settings.journal_seconds, retention_seconds)


@dataclass(frozen=True, slots=True)
class Parts:
    """What every command that writes is made of."""

    client: Client
    store: Store
    entries: Entries
    marks: Marks
    applier: Applier
    budget: Budget
    recovery: RollbackRecovery | None
    audit: Audit
    counted_types: CountedTypes


@asynccontextmanager
async def open_parts(
    settings: Settings, *, allow_eviction: bool = False, only_reads: bool = False
) -> AsyncIterator[Parts]:
    """Yield the parts, on a Redis that is fit and a namespace that is ours; one that only reads claims none."""
    keys, who, counted = Keys(settings.namespace), keyset(settings), counted_types(settings)
    rollback_detector = (
        None if only_reads else RollbackDetector()
    )  # who writes nothing has nothing to mark
    # The client first: what is wrong with the keys is found before a namespace is claimed for them.
    async with (
        Client(who, renew=token_reader(settings)) as client,
        opened_redis(settings.redis_url, rollback_detector) as redis,
        unguarded(redis) as whatever_answers,
    ):
        await check_fitness(redis, allow_eviction=allow_eviction)
        claim = Claim(who.subscribe_key, str(counted))
        await (check_ownership if only_reads else check_namespace)(redis, keys, claim)
        store, marks = Store(redis, keys, lives(settings)), Marks(redis, keys)
        recovery = None
        if rollback_detector:
            recovery = RollbackRecovery(
                rollback_detector,
                Marks(whatever_answers, keys),
                configured_names(settings).channels,
            )
            recovery.pools = (redis.connection_pool, whatever_answers.connection_pool)
        applier = Applier(
            store, marks, settings.settle_seconds, elapsed_clock, rollback_detector, recovery
        )
        budget = Budget(redis, keys, settings.history_rate)
        yield Parts(
            client,
            store,
            Entries(redis, keys),
            marks,
            applier,
            budget,
            recovery,
            Audit(redis, keys),
            counted,
        )


def token_reader(settings: Settings) -> Callable[[], str | None]:
    """Return what reads the access token as its file has it now; None where that cannot be read."""
    warning = ThrottledWarning(log, "token_not_renewed", "token_readable", elapsed_clock)

    def read() -> str | None:
        try:
            token = settings.read_token()
        except ConfigurationError as error:
            warning.failing(reason=str(error))
            return None
        warning.recovered()
        return token

    return read


def history_policy(parts: Parts, settings: Settings, tries: int | None) -> RetryPolicy:
    """Return how history is read: giving up after so many failures in a row, or never."""
    insist, budget = parts.applier.insist, parts.budget  # the budget is in Redis, which may be away
    return RetryPolicy(
        parts.counted_types,
        new_backoff,
        lambda seconds: insist(lambda: budget.hold(seconds)),
        parts.applier.clock,
        settings.settle_seconds,
        tries,
        history_warning(parts.applier.clock),
    )


def build_history(parts: Parts) -> History:
    """Return PubNub's lists, read within the budget."""
    return History(
        parts.client, lambda: parts.applier.insist(parts.budget.take), parts.applier.clock
    )


def build_backfill(
    parts: Parts, settings: Settings, tries: int | None, watch: ProgressWatcher | None = None
) -> Backfiller:
    """Return a backfill that gives up after so many failures in a row, or never."""
    policy = history_policy(parts, settings, tries)
    return Backfiller(
        build_history(parts), parts.client.time, parts.applier, parts.marks, policy, watch
    )


def build_comparison(
    parts: Parts, settings: Settings, tries: int | None, watch: ProgressWatcher | None = None
) -> Comparison:
    """Return what holds PubNub's list against Redis."""
    policy = history_policy(parts, settings, tries)
    scanner = Scanner(build_history(parts), parts.client.time, policy, watch)
    return Comparison(scanner, parts.entries, policy, settings.retention_days * 86400)


def build_reconcile(
    parts: Parts, settings: Settings, tries: int | None, watch: ProgressWatcher | None = None
) -> Reconciler:
    """Return a reconcile that gives up after so many failures in a row, or never."""
    limit = Limit(settings.prune_limit / 100, settings.prune_floor)
    policy = ReconcilePolicy(settings.settle_seconds, limit, parts.applier.clock)
    comparison = build_comparison(parts, settings, tries, watch)
    return Reconciler(comparison, parts.entries, parts.applier, parts.marks, policy)


def new_backoff() -> Backoff:
    """Return waits of their own jitter."""
    return Backoff(random.Random())  # noqa: S311 - jitter, not a secret


async def run(settings: Settings, *, allow_eviction: bool = False) -> ExitCode:
    """Follow everything configured until a signal; the exit code says whether all that was read is applied."""
    early = EarlySignals()
    keyset(settings)
    counted_types(settings)
    followed = followed_names(settings)
    log.info("worker_starts", version=__version__, names=len(followed.all))
    if settings.catchup_seconds < LONGEST_ANSWER_SECONDS:
        log.warning(
            "catchup_is_short",
            seconds=settings.catchup_seconds,
            least_seconds=LONGEST_ANSWER_SECONDS,
        )
    try:
        async with open_parts(settings, allow_eviction=allow_eviction) as parts:
            worker = await compose(parts, settings, followed)
            early.hand_over(worker.service)
            async with serving(settings, worker.health):
                ended = await worker.service.run()
    except TallyError as error:
        log.error("worker_fails", reason=str(error), exit_code=int(error.exit_code))  # noqa: TRY400 - a sentence, no slip
        raise
    except asyncio.CancelledError:
        if not early.has_stopped:
            raise
        ended = ExitCode.DONE  # nothing was read yet
    except (
        Exception
    ):  # a slip of ours in one task: the whole ends, for half a worker would count on in silence
        log.exception("worker_dies")
        ended = ExitCode.FAILED
    log.info("worker_stops", exit_code=int(ended))
    return ended


@asynccontextmanager
async def serving(settings: Settings, health: Health) -> AsyncIterator[None]:
    """Answer for the worker's health over HTTP, if that is wanted.

    Raises:
        ConfigurationError: nobody can listen at the address that was set; at the default it is only said.
    """
    if (address := settings.http) is None:
        yield
        return
    async with AsyncExitStack() as stack:
        try:
            host, port = await stack.enter_async_context(
                listening(address.host, address.port, health.pages)
            )
        except OSError as error:
            reason = f"TALLY_HTTP: nobody can listen at {address}: {error.strerror}. Set another address, or off."
            if settings.is_set("TALLY_HTTP"):
                raise ConfigurationError(reason) from None
            log.warning("http_off", reason=reason)
        else:
            log.info("http_listens", host=host, port=port)
        yield


@dataclass(frozen=True, slots=True)
class Worker:
    """What runs, and what can be asked about it."""

    service: Service
    health: Health
    reload: Reload


async def compose(parts: Parts, settings: Settings, followed: Names) -> Worker:
    """Put a worker together: what it follows, and what runs beside."""
    applier, marks = parts.applier, parts.marks
    repairs = BackfillQueue(build_backfill(parts, settings, tries=None), marks, applier)
    reconcile = build_reconcile(parts, settings, SERVICE_TRIES)
    debts = RepairQueue(reconcile, marks, applier, settings.settle_seconds)

    async def repair(channels: Collection[str], cursor: Cursor | None) -> None:
        if cursor:
            await repairs.request(channels, cursor)
        debts.note(channels)

    gaps = Gaps(marks, applier, repair)
    size = settings.channels_per_subscription
    following = Subscriptions(
        subscription_factory(parts, settings, gaps),
        await resume_points(parts, followed, size),
        size,
    )
    reload = Reload(lambda: followed_names(settings), following, applier, marks)
    if parts.recovery:
        parts.recovery.heard += [debts.note, repairs.note, lambda _: following.reread()]
    schedule = Schedule(
        settings.reconcile_seconds, settings.reconcile_window, settings.reconcile_full_seconds
    )
    rounds = Rounds(reconcile, debts, parts.entries, applier, marks, parts.client.time, schedule)
    beside = [repairs.run, debts.run, rounds.run, reload.run, lambda: heartbeat(parts, settings)]
    if followed.groups:
        beside.append(GroupMembers(followed.groups, parts.client, gaps).run)
    if settings.retention_days:
        beside.append(Expiry(parts.store, marks, applier).run)
    service = Service(following, beside, settings.drain_seconds)
    if (
        settings.channels_file or not sys.stderr.isatty()
    ):  # else it means that the terminal has gone
        service.hang_up = reload.ask
    metrics.budget_rate.set(settings.history_rate)
    health = Health(
        following, repairs, reconcile, applier, marks, masked.as_json(settings)["settings"]
    )
    return Worker(service, health, reload)


def subscription_factory(
    parts: Parts, settings: Settings, gaps: Gaps
) -> Callable[[Assignment[ResumePoint]], Subscription]:
    """Return what makes a subscription of a lot."""
    client, applier = parts.client, parts.applier
    config = SubscriptionConfig(parts.counted_types, settings.catchup_seconds, applier.clock)
    warning = unreachable(applier.clock)

    def subscription(assignment: Assignment[ResumePoint]) -> Subscription:
        poller = Poller(client, assignment.names, new_backoff(), applier.clock, warning)
        return Subscription(assignment, poller, applier, parts.marks, config, client, gaps)

    return subscription


async def heartbeat(parts: Parts, settings: Settings) -> None:
    """Let a worker that has nothing to do notice that Redis went back; and Redis, that it is still there."""
    while True:
        await asyncio.sleep(min(settings.settle_seconds, HEARTBEAT_SECONDS))
        await parts.applier.insist(parts.marks.still_here)


async def resume_points(parts: Parts, followed: Names, size: int) -> list[Assignment[ResumePoint]]:
    """Return the names as they were followed last, each from where it was left; who is new joins them."""
    now = parts.applier.clock()
    saved = await parts.applier.insist(parts.marks.followed)
    resume_points = [
        (Names.read(names), ResumePoint(digest(names), at.cursor, now - at.age_seconds, at.saves))
        for names, at in saved
    ]
    whose = {resume_point: names for names, resume_point in resume_points}
    return [
        # A subscription that goes on as it was finds its cursor under its own name, with the number of its saves.
        Assignment(assignment.names)
        if assignment.resume_point and whose[assignment.resume_point] == assignment.names
        else assignment
        for assignment in assign(followed, resume_points, size)
    ]


async def backfill(
    settings: Settings,
    channels: Sequence[str],
    wanted: Range,
    watch: ProgressWatcher | None,
    *,
    allow_eviction: bool = False,
) -> dict[str, int]:
    """Replay these channels, or all configured and all ever seen; return how many actions were read of each."""
    check_channels(channels)
    async with open_parts(settings, allow_eviction=allow_eviction) as parts:
        asked = await asked_channels(parts, settings, channels, "backfill")
        return await build_backfill(parts, settings, COMMAND_TRIES, watch).run(asked, wanted)


async def reconcile(
    settings: Settings,
    channels: Sequence[str],
    wanted: Range,
    options: ReconcileOptions,
    watch: ProgressWatcher | None,
    *,
    allow_eviction: bool = False,
) -> list[ReconcileReport]:
    """Reconcile these channels, or all configured and all ever seen."""
    check_channels(channels)
    async with open_parts(
        settings, allow_eviction=allow_eviction, only_reads=options.dry_run
    ) as parts:
        asked = await asked_channels(parts, settings, channels, "reconcile")
        return await build_reconcile(parts, settings, COMMAND_TRIES, watch).run(
            asked, wanted, options
        )


async def verify(
    settings: Settings, channels: Sequence[str], sample: float, watch: ProgressWatcher | None
) -> VerifyReport:
    """Compare these channels, or all configured and all ever seen, with PubNub and with themselves; write nothing."""
    check_channels(channels)
    async with open_parts(settings, allow_eviction=True, only_reads=True) as parts:
        asked = await asked_channels(parts, settings, channels, "verify")
        comparison = build_comparison(parts, settings, COMMAND_TRIES, watch)
        choice = Sample(sample, random.Random())  # noqa: S311 - a sample, not a secret
        return await Verifier(
            comparison, parts.entries, parts.audit, settings.settle_seconds, choice
        ).run(asked)


def check_channels(channels: Sequence[str]) -> None:
    """Refuse what is no channel name, before anything is opened or claimed.

    Raises:
        ConfigurationError: one of them is none.
    """
    for channel in channels:
        names.channel(channel)


async def asked_channels(
    parts: Parts, settings: Settings, channels: Sequence[str], verb: str
) -> list[str]:
    """Return the channels a command was given, or all configured and all ever seen.

    Raises:
        ConfigurationError: there are none.
    """
    asked = list(channels) or sorted(await known_channels(parts, configured_names(settings)))
    if not asked:
        raise ConfigurationError(f"No channel to {verb}: name one, or set TALLY_CHANNELS.")
    return asked


async def known_channels(parts: Parts, followed: Names) -> set[str]:
    """Return all channels configured (groups looked up) and all ever seen."""
    known = set(followed.channels) | await parts.marks.channels()
    for group in followed.groups:
        known.update(await parts.client.group_channels(group))
    return known


@dataclass(slots=True)
class Usable:
    """What of the configuration the doctor can look further with, even where another part of it is wrong."""

    claim: Claim | None = None
    client: Client | None = None
    followed: Names = field(default_factory=Names)


async def doctor(settings: Settings, *, allow_eviction: bool = False) -> AsyncIterator[Finding]:
    """Yield what is found, part by part: configuration, PubNub, Redis."""
    usable = Usable()
    async with AsyncExitStack() as stack:

        async def configuration() -> str:
            who, counted = keyset(settings), counted_types(settings)
            usable.claim = Claim(who.subscribe_key, str(counted))
            usable.client = await stack.enter_async_context(Client(who))
            usable.followed = followed_names(settings)
            return f"complete; counts {counted}"

        yield await look("Configuration", configuration)
        if usable.client:
            per_subscription = settings.channels_per_subscription
            async for finding in examine_pubnub(
                usable.client, usable.followed, per_subscription, time.time
            ):
                yield finding
    try:
        async with opened_redis(settings.redis_url) as redis:
            keys = Keys(settings.namespace)
            for finding in await examine_redis(
                redis, keys, usable.claim, allow_eviction=allow_eviction
            ):
                yield finding
    except TallyError as error:
        yield Finding("Redis", str(error), error.exit_code)
