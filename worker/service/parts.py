"""The parts that commands are built of; opened and closed here."""

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

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
from worker.store.connection import RedisClient, opened_redis, recovery_client
from worker.store.entries import Entries
from worker.store.keys import Keys
from worker.store.preflight import (
    Claim,
    check_fitness,
    check_namespace,
    check_ownership,
)
from worker.store.redis_retry import RedisRetry
from worker.store.rollback_detector import RollbackDetector
from worker.store.store import Store, Ttls
from worker.store.tables import Tables
from worker.telemetry.throttled_warning import ThrottledWarning

SECONDS_PER_DAY: Final = 86_400

log = structlog.get_logger(__name__)


def keyset(settings: Settings) -> Keyset:
    """Return the keys and names that identify us to PubNub.

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
    """Return the names to follow, at least one.

    Raises:
        ConfigurationError: no name is set,
            or another setting of a worker is wrong. All errors together.
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
    """The clients of PubNub and Redis."""

    client: Client
    redis: RedisClient
    """Refuses another server than the one before."""
    recovery_redis: RedisClient
    """Accepts any server; only a recovery uses it."""
    pools: Sequence[Pool]
    """The connections of both; a recovery closes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What commands are built of.

    ``tables`` and ``retried_entries`` wait while Redis is away.
    ``probe_tables`` and ``entries`` raise.
    """

    settings: Settings
    client: Client
    store: Store
    entries: Entries
    retried_entries: Entries
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
        """Return the parts on these connections.

        A command that only reads needs no ``rollback_detector``.
        """
        redis = connections.redis
        keys = Keys(settings.namespace)
        recovery = _build_recovery(connections, settings, rollback_detector)
        retry = RedisRetry(clock, rollback_detector, recovery)
        store = Store(redis, keys, ttls(settings), retry)
        tables = Tables(redis, keys, retry)
        return cls(
            settings=settings,
            client=connections.client,
            store=store,
            entries=Entries(redis, keys),
            retried_entries=Entries(redis, keys, retry),
            tables=tables,
            probe_tables=Tables(redis, keys),
            applier=Applier(store, tables, retry, settings.settle_seconds),
            budget=Budget(redis, keys, settings.history_rate, retry),
            recovery=recovery,
            audit=Audit(redis, keys),
            counted_types=counted_types(settings),
            clock=clock,
        )


def _build_recovery(
    connections: Connections,
    settings: Settings,
    rollback_detector: RollbackDetector | None,
) -> RollbackRecovery | None:
    if rollback_detector is None:
        return None
    return RollbackRecovery(
        rollback_detector,
        Tables(connections.recovery_redis, Keys(settings.namespace)),
        configured_names(settings).channels,
        connections.pools,
    )


@asynccontextmanager
async def open_parts(
    settings: Settings, *, allow_eviction: bool = False, only_reads: bool = False
) -> AsyncIterator[Parts]:
    """Yield the parts, on a Redis that is fit.

    A command that only reads claims no namespace.

    Raises:
        ConfigurationError: a setting is wrong.
        RedisUnavailableError: Redis does not answer.
        RedisUnfitError: Redis must not be used as it is,
            or the namespace has another owner.
    """
    keys = Keys(settings.namespace)
    own_keyset = keyset(settings)
    claim = Claim(own_keyset.subscribe_key, str(counted_types(settings)))
    rollback_detector = None if only_reads else RollbackDetector()
    # The client is opened first:
    # a wrong key must be found before a namespace is claimed for it.
    async with (
        Client(own_keyset, renew=token_reader(settings)) as client,
        opened_redis(settings.redis_url, rollback_detector) as redis,
        recovery_client(redis) as recovery_redis,
    ):
        await check_fitness(redis, allow_eviction=allow_eviction)
        check = check_ownership if only_reads else check_namespace
        await check(redis, keys, claim)
        connections = Connections(
            client=client,
            redis=redis,
            recovery_redis=recovery_redis,
            pools=(redis.connection_pool, recovery_redis.connection_pool),
        )
        yield Parts.on(connections, settings, elapsed_clock, rollback_detector)


def token_reader(settings: Settings) -> Callable[[], str | None]:
    """Return a function that reads the access token from its file.

    It returns None if the file cannot be read.
    """
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
    """Return how requests to PubNub are repeated.

    They end after ``tries`` failures in a row; None: never.
    """
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
    """Return a backfiller; ``tries`` as in ``retry_policy``."""
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
    """Return a comparison of PubNub's list with the entries in Redis."""
    policy = retry_policy(parts, tries)
    scanner = Scanner(build_history(parts), parts.client.time, policy, watcher)
    retention_seconds = parts.settings.retention_days * SECONDS_PER_DAY
    return Comparison(scanner, parts.entries, policy, retention_seconds)


def build_reconciler(
    parts: Parts, tries: int | None, watcher: ProgressWatcher | None = None
) -> Reconciler:
    """Return a reconciler; ``tries`` as in ``retry_policy``."""
    settings = parts.settings
    limit = Limit(settings.prune_limit / 100, settings.prune_floor)
    policy = ReconcilePolicy(settings.settle_seconds, limit, parts.clock)
    comparison = build_comparison(parts, tries, watcher)
    return Reconciler(comparison, parts.retried_entries, parts.applier, parts.tables, policy)


def new_backoff() -> Backoff:
    """Return a backoff with a jitter of its own."""
    return Backoff(random.Random())  # noqa: S311 - jitter, not a secret
