"""The parts that commands are built of; opened and closed here."""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import structlog

from reaction_tally.keys import Keys
from worker.applying.apply import Applier
from worker.applying.expiry import Expiry
from worker.applying.retry import ProgressWatcher, RetryPolicy, history_warning
from worker.applying.rollback import RollbackRecovery
from worker.applying.shard_doubts import ShardDoubts
from worker.applying.shard_watch import shards_watched
from worker.applying.slots import Slots
from worker.domain.reconciliation import Limit
from worker.errors import ConfigurationError, ScriptRefusedError
from worker.history.backfill import Backfiller
from worker.reconciliation.consistency import Consistency
from worker.reconciliation.corrections import Corrections
from worker.reconciliation.evidence import Comparison
from worker.reconciliation.list_reader import ListReader
from worker.reconciliation.origin_check import OriginCheck
from worker.reconciliation.prune_limit import PruneLimit
from worker.reconciliation.reconcile import Reconciler
from worker.reconciliation.repair import Repair
from worker.reconciliation.repair_steps import RepairSteps
from worker.reconciliation.report import ReconcilePolicy
from worker.reconciliation.schedule import Schedule
from worker.service.configured import (
    claim_of,
    configured_names,
    counted_types,
    keyset,
    share_of,
)
from worker.settings import Settings
from worker.source.backoff import Backoff, elapsed_clock
from worker.source.client import Client
from worker.source.history import History
from worker.source.steady_clock import SteadyClock
from worker.store.apply_script import Ttls
from worker.store.audit import Audit
from worker.store.budget import Budget
from worker.store.connection import RedisClient, opened_redis, pool_of, recovery_client
from worker.store.counted_types import acceptable_claim, claim_namespace
from worker.store.entries import Entries
from worker.store.key_scan import ChannelScan
from worker.store.ownership import Ownership, check_ownership
from worker.store.preflight import check_fitness, check_keys, check_permissions
from worker.store.redis_retry import RedisRetry
from worker.store.refused_users import RefusedUsers
from worker.store.rollback_detector import RollbackDetector
from worker.store.shard_signs import signs_of
from worker.store.store import Store
from worker.store.tables import Tables
from worker.store.tombstones import Tombstones
from worker.telemetry.throttled_warning import ThrottledWarning

log = structlog.get_logger(__name__)


class Parts:
    """What commands are built of.

    ``tables`` and ``retried_entries`` wait while Redis is away.
    ``probe_tables`` and ``entries`` raise.
    """

    def __init__(
        self,
        client: Client,
        redis: RedisClient,
        recovery_redis: RedisClient,
        settings: Settings,
        clock: Callable[[], float],
        rollback_detector: RollbackDetector | None = None,
    ) -> None:
        """Only a recovery uses ``recovery_redis``, which accepts any server.

        A command that only reads needs no ``rollback_detector``.
        """
        keys = Keys(settings.namespace)
        self.settings = settings
        self.redis = redis
        self.client = client
        self.clock = clock
        self.counted_types = counted_types(settings)
        self.share = share_of(settings)
        self.ownership = Ownership(recovery_redis, keys, claim_of(settings))
        self.signs = signs_of(redis, keys)
        self.recovery = None
        if rollback_detector:
            self.recovery = self._recovery(rollback_detector, recovery_redis)
        recover = self.recovery.run if self.recovery else None
        retry = RedisRetry(clock, rollback_detector, recover)
        self.retry = retry
        self.ttls = Ttls(
            settings.tombstone_seconds,
            settings.journal_seconds,
            settings.retention_seconds,
        )
        replicas = settings.wait_replicas
        self.store = Store(redis, keys, self.ttls, retry, replicas)
        self.entries = Entries(redis, keys)
        self.retried_entries = Entries(redis, keys, retry)
        self.tables = Tables(redis, keys, retry, self.share, replicas)
        self.probe_tables = Tables(redis, keys, share=self.share, replicas=replicas)
        self.slots = Slots()
        self.applier = Applier(self.store, self.tables, retry, settings.settle_seconds)
        self.budget = Budget(redis, keys, settings.history_rate, retry)
        self.pubnub_clock = SteadyClock(client.time, clock)
        self.history = History(self.client, self.budget.take, clock)
        self.audit = Audit(redis, keys)
        self.tombstones = Tombstones(redis, keys, retry)
        self.shard_doubts = self._doubts() if self.signs else None

    def _recovery(
        self,
        rollback_detector: RollbackDetector,
        recovery_redis: RedisClient,
    ) -> RollbackRecovery:
        """Return what compares Redis with what this process knows."""
        names = configured_names(self.settings).of_shard(self.settings.shard)
        pools: tuple[Any, ...] = (pool_of(self.redis), pool_of(recovery_redis))
        if self.signs:
            rollback_detector.expect_shards()
            # Others watch the servers of a cluster: no connection leads to an old one.
            pools = ()
        return RollbackRecovery(
            rollback_detector,
            Tables(recovery_redis, Keys(self.settings.namespace)),
            self.ownership,
            names.channels,
            pools,
            self.signs,
        )

    def _doubts(self) -> ShardDoubts:
        """Return what reads the cursors of a cluster."""
        assert self.signs  # noqa: S101 - for mypy: there is a cluster
        keys = Keys(self.settings.namespace)
        scan = ChannelScan(self.redis, keys)
        tables = self.tables, self.probe_tables
        return ShardDoubts(*tables, self.signs, scan, keys, self.retry)

    @asynccontextmanager
    async def shards_watched(self) -> AsyncIterator[None]:
        """Watch the shards of a cluster meanwhile, if whoever writes must know of a loss."""
        if not (self.signs and self.recovery):
            yield
            return
        detector = self.retry.rollback_detector
        async with shards_watched(self.probe_tables, self.signs, detector, self.recovery):
            yield


@asynccontextmanager
async def open_parts(
    settings: Settings,
    *,
    allow_eviction: bool = False,
    only_reads: bool = False,
) -> AsyncIterator[Parts]:
    """Yield the parts, on a Redis that is fit.

    A command that only reads claims no namespace.

    Raises:
        TallyError: a setting is wrong, or Redis is away or unfit.
    """
    own_keyset = keyset(settings)
    claim = claim_of(settings)
    rollback_detector = None if only_reads else RollbackDetector()
    opened = opened_redis(
        settings.redis_url,
        rollback_detector,
        may_create=not only_reads,
    )
    # The client is opened first:
    # a wrong key must be found before a namespace is claimed for it.
    async with (
        Client(own_keyset, renew=token_reader(settings)) as client,
        opened as redis,
        recovery_client(redis) as recovery_redis,
    ):
        await check_fitness(
            redis,
            allow_eviction=allow_eviction,
            only_reads=only_reads,
        )
        keys = Keys(settings.namespace)
        if not only_reads:
            await check_permissions(redis, keys, settings.wait_replicas)
        await check_keys(redis, keys)
        await RefusedUsers(redis, keys).read()
        clients = (client, redis, recovery_redis)
        parts = Parts(*clients, settings, elapsed_clock, rollback_detector)
        if only_reads:
            acceptable = await acceptable_claim(redis, keys, claim)
            await check_ownership(redis, keys, acceptable)
        else:
            await claim_namespace(redis, keys, claim, parts.ownership)
        try:
            async with parts.shards_watched():
                yield parts
        except ScriptRefusedError:
            # Another program may have written such a key meanwhile.
            await check_keys(redis, keys)
            raise


def token_reader(settings: Settings) -> Callable[[], str | None]:
    """Return a function that reads the token's file, or returns None."""
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
    """Return how requests are repeated; ``tries=None``: for ever."""
    return RetryPolicy(
        counted_types=parts.counted_types,
        backoff=new_backoff,
        hold=parts.budget.hold,
        clock=parts.clock,
        settle_seconds=parts.settings.settle_seconds,
        tries=tries,
        warning=history_warning(parts.clock),
        pause=parts.slots.pause,
        give_way=parts.slots.give_way,
        forgotten_users=parts.applier.forgotten_users.current,
    )


def build_backfiller(
    parts: Parts,
    tries: int | None,
    watcher: ProgressWatcher | None = None,
) -> Backfiller:
    """Return a backfiller; ``tries`` as in ``retry_policy``."""
    return Backfiller(
        parts.history,
        parts.pubnub_clock.now,
        parts.applier,
        parts.tables,
        retry_policy(parts, tries),
        watcher,
    )


def build_comparison(
    parts: Parts,
    tries: int | None,
    watcher: ProgressWatcher | None = None,
) -> Comparison:
    """Return a comparison of PubNub's list with the entries in Redis."""
    policy = retry_policy(parts, tries)
    reader = ListReader(parts.history, parts.pubnub_clock.now, policy, watcher)
    return Comparison(reader, parts.entries, parts.settings.retention_seconds)


def build_reconciler(
    parts: Parts,
    tries: int | None,
    watcher: ProgressWatcher | None = None,
    *,
    is_worker: bool = False,
) -> Reconciler:
    """Return a reconciler; ``tries`` as in ``retry_policy``."""
    settings = parts.settings
    entries, tables, applier = parts.retried_entries, parts.tables, parts.applier
    policy = ReconcilePolicy(
        settings.settle_seconds,
        parts.clock,
        parts.slots,
        schedule(settings).recheck,
        is_worker,
    )
    comparison = build_comparison(parts, tries, watcher)
    limit = Limit(settings.prune_limit / 100, settings.prune_floor)
    origin = OriginCheck(comparison.reader, parts.entries, tables, parts.clock)
    consistency = Consistency(parts.entries, parts.audit, parts.store)
    repair = Repair(
        comparison,
        Corrections(entries, applier, parts.clock),
        PruneLimit(limit, entries, tables, origin),
        applier,
        policy,
        consistency,
    )
    return Reconciler(
        repair,
        tables,
        applier.rollback_detector,
        policy,
        consistency,
    )


def build_repair_steps(
    parts: Parts,
    reconciler: Reconciler,
    tries: int | None,
) -> RepairSteps:
    """Return the steps of repairs; ``tries`` as in ``retry_policy``."""
    backfiller = build_backfiller(parts, tries)
    settings = parts.settings
    return RepairSteps(
        reconciler,
        backfiller,
        parts.tables,
        parts.slots,
        settings.settle_seconds,
        lambda: parts.budget.rate,
    )


def build_expiry(parts: Parts) -> Expiry:
    """Return what deletes old messages and tombstones."""
    return Expiry(parts.store, parts.tables, parts.tombstones, parts.ttls, parts.clock)


def schedule(settings: Settings) -> Schedule:
    """Return how often rounds look at a channel."""
    return Schedule(
        settings.reconcile_seconds,
        settings.reconcile_window,
        settings.reconcile_full_seconds,
        settings.history_rate,
    )


def new_backoff() -> Backoff:
    """Return a backoff with a jitter of its own."""
    return Backoff(new_random())


def new_random() -> random.Random:
    """Return randomness for jitter and order; not for secrets."""
    return random.Random()  # noqa: S311
