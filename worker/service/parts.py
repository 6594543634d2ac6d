"""The parts that every command which writes is made of; opened and closed here."""

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from worker.applying.apply import Applier
from worker.applying.retry import ProgressWatcher, RetryPolicy, history_warning
from worker.applying.rollback import Pool, RollbackRecovery
from worker.domain.reconciliation import Limit
from worker.errors import ConfigurationError
from worker.history.backfill import Backfiller
from worker.reconciliation.evidence import Comparison
from worker.reconciliation.reconcile import ReconcilePolicy, Reconciler
from worker.reconciliation.scan import Scanner
from worker.settings import Settings
from worker.settings.checks import COUNTED, FOLLOW, KEYSET, demand
from worker.source.backoff import Backoff, elapsed_clock
from worker.source.client import Client, Keyset
from worker.source.history import History
from worker.source.names import Names
from worker.source.wire import CountedTypes
from worker.store.audit import Audit
from worker.store.budget import Budget
from worker.store.connection import RedisClient, unguarded
from worker.store.entries import Entries
from worker.store.keys import Keys
from worker.store.opened import opened_redis
from worker.store.preflight import Claim, check_fitness, check_namespace, check_ownership
from worker.store.redis_retry import RedisRetry
from worker.store.rollback_detector import RollbackDetector
from worker.store.store import Store, Ttls
from worker.store.tables import Tables
from worker.telemetry.throttled_warning import ThrottledWarning

SECONDS_PER_DAY = 86_400

log = structlog.get_logger(__name__)


def keyset(settings: Settings) -> Keyset:
    """Return what PubNub wants to know of its caller.

    Raises:
        ConfigurationError: the subscribe key is missing, or a key is wrong.
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
        ConfigurationError: PubNub would refuse a name, or the file of channels cannot be read.
    """
    return Names.of(settings.all_channels(), settings.channel_groups)


def followed_names(settings: Settings) -> Names:
    """Return the names to follow, at least one; everything that a worker needs is demanded.

    Raises:
        ConfigurationError: no name is set, or another setting is wrong; all errors together.
    """
    demand(settings, FOLLOW.checks)
    return configured_names(settings)


def counted_types(settings: Settings) -> CountedTypes:
    """Return which types are counted.

    Raises:
        ConfigurationError: no type is.
    """
    demand(settings, COUNTED)
    return CountedTypes(frozenset(settings.types), frozenset(settings.ignored_types))


def ttls(settings: Settings) -> Ttls:
    """Return how long each kind of key lives."""
    retention_seconds = round(settings.retention_days * SECONDS_PER_DAY)
    return Ttls(settings.tombstone_seconds, settings.journal_seconds, retention_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Connections:
    """What leads outside: PubNub, and Redis twice."""

    client: Client
    redis: RedisClient
    """Refuses to speak to another server than before."""
    unguarded_redis: RedisClient
    """Speaks to whatever server answers; only a recovery uses it."""
    pools: Sequence[Pool]
    """The connections of both; a recovery ends them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What commands are built of. ``tables`` wait while Redis is away; ``probe_tables`` raise."""

    settings: Settings
    client: Client
    store: Store
    entries: Entries
    patient_entries: Entries
    tables: Tables
    probe_tables: Tables
    applier: Applier
    budget: Budget
    recovery: RollbackRecovery | None
    audit: Audit
    counted_types: CountedTypes
    clock: Callable[[], float]

    @classmethod
    def on(
        cls,
        connections: Connections,
        settings: Settings,
        clock: Callable[[], float],
        rollback_detector: RollbackDetector | None = None,
    ) -> "Parts":
        """Return the parts on these connections; without a detector, for a command that only reads."""
        redis, keys = connections.redis, Keys(settings.namespace)
        recovery = None
        if rollback_detector:
            recovery = RollbackRecovery(
                rollback_detector,
                Tables.on(connections.unguarded_redis, keys),
                configured_names(settings).channels,
                connections.pools,
            )
        retry = RedisRetry(clock, rollback_detector, recovery)
        store = Store(redis, keys, ttls(settings), retry)
        tables = Tables.on(redis, keys, retry)
        return cls(
            settings=settings,
            client=connections.client,
            store=store,
            entries=Entries(redis, keys),
            patient_entries=Entries(redis, keys, retry),
            tables=tables,
            probe_tables=Tables.on(redis, keys),
            applier=Applier(store, tables, retry, settings.settle_seconds),
            budget=Budget(redis, keys, settings.history_rate, retry),
            recovery=recovery,
            audit=Audit(redis, keys),
            counted_types=counted_types(settings),
            clock=clock,
        )


@asynccontextmanager
async def open_parts(
    settings: Settings, *, allow_eviction: bool = False, only_reads: bool = False
) -> AsyncIterator[Parts]:
    """Yield the parts, on a Redis that is fit; a command that only reads claims no namespace.

    Raises:
        ConfigurationError: a setting is wrong.
        RedisUnavailableError: Redis does not answer.
        RedisUnfitError: Redis must not be used as it is, or the namespace is not ours.
    """
    keys, who, counted = Keys(settings.namespace), keyset(settings), counted_types(settings)
    rollback_detector = None if only_reads else RollbackDetector()
    # The client first: a wrong key is found before a namespace is claimed for it.
    async with (
        Client(who, renew=token_reader(settings)) as client,
        opened_redis(settings.redis_url, rollback_detector) as redis,
        unguarded(redis) as unguarded_redis,
    ):
        await check_fitness(redis, allow_eviction=allow_eviction)
        check = check_ownership if only_reads else check_namespace
        await check(redis, keys, Claim(who.subscribe_key, str(counted)))
        connections = Connections(
            client=client,
            redis=redis,
            unguarded_redis=unguarded_redis,
            pools=(redis.connection_pool, unguarded_redis.connection_pool),
        )
        yield Parts.on(connections, settings, elapsed_clock, rollback_detector)


def token_reader(settings: Settings) -> Callable[[], str | None]:
    """Return a function that reads the access token as its file has it now; None on failure."""
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


def retry_policy(parts: Parts, tries: int | None) -> RetryPolicy:
    """Return how PubNub is asked again: up to so many failures in a row, or for ever."""
    return RetryPolicy(
        counted_types=parts.counted_types,
        backoff=new_backoff,
        hold=parts.budget.hold,
        clock=parts.clock,
        settle_seconds=parts.settings.settle_seconds,
        tries=tries,
        warning=history_warning(parts.clock),
    )


def build_history(parts: Parts) -> History:
    """Return PubNub's lists, read within the budget."""
    return History(parts.client, parts.budget.take, parts.clock)


def build_backfiller(
    parts: Parts, tries: int | None, watcher: ProgressWatcher | None = None
) -> Backfiller:
    """Return a backfiller that gives up after so many failures in a row, or never."""
    return Backfiller(
        build_history(parts),
        parts.client.time,
        parts.applier,
        parts.tables,
        retry_policy(parts, tries),
        watcher,
    )


def build_comparison(
    parts: Parts, tries: int | None, watcher: ProgressWatcher | None = None
) -> Comparison:
    """Return what compares PubNub's list with the entries in Redis."""
    policy = retry_policy(parts, tries)
    scanner = Scanner(build_history(parts), parts.client.time, policy, watcher)
    retention_seconds = parts.settings.retention_days * SECONDS_PER_DAY
    return Comparison(scanner, parts.entries, policy, retention_seconds)


def build_reconciler(
    parts: Parts, tries: int | None, watcher: ProgressWatcher | None = None
) -> Reconciler:
    """Return a reconciler that gives up after so many failures in a row, or never."""
    settings = parts.settings
    limit = Limit(settings.prune_limit / 100, settings.prune_floor)
    policy = ReconcilePolicy(settings.settle_seconds, limit, parts.clock)
    comparison = build_comparison(parts, tries, watcher)
    return Reconciler(comparison, parts.patient_entries, parts.applier, parts.tables, policy)


def new_backoff() -> Backoff:
    """Return waits with a jitter of their own."""
    return Backoff(random.Random())  # noqa: S311 - jitter, not a secret
