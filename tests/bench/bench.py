"""The parts of a worker, put together on a PubNub emulator and a real Valkey."""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from redis.asyncio import Redis

from reaction_tally.keys import Keys
from tests.unclaimed import UnclaimedReader
from worker.applying.apply import Applier
from worker.applying.rollback import Pool, RollbackRecovery
from worker.emulator import Emulator
from worker.errors import PubNubError
from worker.live.assignment import Assignment
from worker.live.gaps import CoveredChannels, Gaps, RequestRepair
from worker.live.group_commit import GroupCommit
from worker.live.polling import Polling
from worker.live.subscription import Subscription
from worker.live.subscription_cursor import ResumePoint, SubscriptionCursor
from worker.source.backoff import Backoff
from worker.source.client import Client
from worker.source.live import Poller
from worker.source.reachability import Reachability
from worker.source.wire import CountedTypes
from worker.store.apply_script import Ttls
from worker.store.ownership import Claim, Ownership
from worker.store.redis_retry import RedisRetry
from worker.store.rollback_detector import RollbackDetector
from worker.store.store import Store
from worker.store.tables import Tables

KEYS = Keys()
CLAIM = Claim(
    subscribe_key="demo",
    types="all",
    retention_days="0",
    tombstone_seconds="3600",
    settle_seconds="60",
)
CATCHUP_SECONDS = 600.0
SETTLE_SECONDS = 60.0


@dataclass
class Clock:
    """Seconds that pass when a test says so."""

    now: float = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@dataclass
class Bench:
    """A worker's parts, laid out."""

    redis: Redis
    emulator: Emulator
    client: Client
    clock: Clock = field(default_factory=Clock)
    counted_types: CountedTypes = field(default_factory=CountedTypes)

    def __post_init__(self) -> None:
        self.lay_out()
        self.reader = UnclaimedReader(self.redis)

    def lay_out(
        self,
        rollback_detector: RollbackDetector | None = None,
        recovery: RollbackRecovery | None = None,
        ttls: Ttls | None = None,
    ) -> None:
        """Make the parts that write to Redis."""
        recover = recovery.run if recovery else None
        self.retry = RedisRetry(self.clock, rollback_detector, recover)
        self.store = Store(self.redis, KEYS, ttls)
        self.tables = Tables(self.redis, KEYS, self.retry)
        self.applier = Applier(self.store, self.tables, self.retry, SETTLE_SECONDS)

    def subscription(
        self, assignment: Assignment[ResumePoint], request_repair: RequestRepair
    ) -> Subscription:
        """Return a new subscription."""
        names, detector = assignment.names, self.applier.rollback_detector
        gaps = Gaps(self.tables, request_repair)
        reachability = Reachability(backoff(), self.clock)
        poller = Poller(self.client, names, reachability, self.clock)
        return Subscription(
            assignment,
            Polling(poller, self.counted_types, self.clock),
            GroupCommit(self.applier),
            CoveredChannels(names, self.tables.channels, self.client, gaps, CATCHUP_SECONDS),
            SubscriptionCursor(names, self.tables.cursors, detector, self.clock),
        )

    async def counts(self) -> dict[str, dict[str, dict[str, dict[str, int]]]]:
        """Return what Redis holds, in the shape of the emulator's truth."""
        held: dict[str, dict[str, dict[str, dict[str, int]]]] = {}
        for channel in await self.tables.channels.all():
            messages = await cast("Any", self.redis).zrange(KEYS.messages(channel), 0, -1)
            for message, counts in (await self.reader.get_many(channel, messages)).items():
                if counts:
                    held.setdefault(channel, {})[message] = {
                        type: dict(values) for type, values in counts.items()
                    }
        return held

    async def quarantined(self) -> list[dict[str, str]]:
        """Return the quarantine's entries."""
        return [entry for _, entry in await cast("Any", self.redis).xrange(KEYS.quarantine)]


async def claimed_recovery(
    rollback_detector: RollbackDetector,
    redis: Redis,
    followed: Collection[str],
    pools: Sequence[Pool] = (),
) -> RollbackRecovery:
    """Return a recovery of a process that has claimed the namespace.

    ``redis`` accepts any server.
    """
    ownership = Ownership(redis, KEYS, CLAIM)
    await ownership.claim()
    return RollbackRecovery(rollback_detector, Tables(redis, KEYS), ownership, followed, pools)


class HurriedBackoff(Backoff):
    """Waits a thousandth of what it should, also after a ``Retry-After``."""

    def failed(self, error: PubNubError) -> float:
        """Return the seconds to wait."""
        return super().failed(error) / 1000


def backoff() -> Backoff:
    """Return seeded waits, all of them short."""
    return HurriedBackoff(random.Random(1))
