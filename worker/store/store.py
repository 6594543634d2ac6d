"""The tallies in Redis: one script call applies events of one channel."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from redis.asyncio import Redis

from worker.domain.action import Event, Origin
from worker.domain.entry import Outcome
from worker.domain.position import Timetoken
from worker.store.batch import Batch
from worker.store.batched import batched
from worker.store.keys import Keys
from worker.store.redis_errors import redis_errors
from worker.store.redis_retry import RedisRetry
from worker.store.scripts import Call, Script
from worker.store.table import Table, retried
from worker.telemetry import metrics

OUTCOMES: Final = {
    "a": Outcome.APPLIED,
    "s": Outcome.SUPERSEDED,
    "d": Outcome.DUPLICATE,
    "l": Outcome.LATE,
    "e": Outcome.EARLY,
    "u": Outcome.UNMATCHED,
    "x": Outcome.EXPIRED,
}
"""The letters of ``lua/apply.lua``."""
SWEEP_BATCH: Final = 100
"""Messages a sweep deletes at once."""


@dataclass(frozen=True, slots=True)
class Ttls:
    """How long keys live, in seconds.

    A message expires at the age of ``retention_seconds`` (0: never).
    """

    tombstone_seconds: int = 3600
    journal_seconds: int = 86400
    retention_seconds: int = 0


@dataclass(frozen=True, slots=True)
class Applied:
    """What one script call did, and the journal's head before and after."""

    channel: str
    head_before: str
    head_after: str
    letters: str
    """The outcomes of the events, grouped as in ``Batch``."""

    @property
    def counted(self) -> Counter[Outcome]:
        """How many events had each outcome."""
        counts = Counter(self.letters)
        return Counter({OUTCOMES[letter]: counts[letter] for letter in counts})


class Store(Table):
    """Applies events, and deletes messages that have expired."""

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        ttls: Ttls | None = None,
        retry: RedisRetry | None = None,
    ) -> None:
        """``apply`` raises even with a ``retry``; ``sweep`` waits."""
        super().__init__(redis, keys, retry)
        self._ttls = ttls or Ttls()
        self._lives = (
            self._ttls.tombstone_seconds,
            self._ttls.journal_seconds,
            self._ttls.retention_seconds,
        )
        self._apply = Script(redis, "apply")
        self._sweep = Script(redis, "sweep")

    async def apply(
        self,
        channel: str,
        events: Sequence[Event],
        origin: Origin,
    ) -> Applied:
        """Apply events of one channel, atomically and in order.

        There may be ``batch.MAX_BATCH`` of them.

        Raises:
            RedisUnavailableError: try again. To apply twice is to apply once.
            ScriptRefusedError: one of the events can never be applied.
                Nothing was written.
        """
        (applied,) = await self.apply_all([(channel, events)], origin)
        return applied

    async def apply_all(
        self, batches: Sequence[tuple[str, Sequence[Event]]], origin: Origin
    ) -> list[Applied]:
        """Apply events of several channels in one round trip.

        Each channel is applied by itself, as ``apply`` does.

        Raises:
            RedisUnavailableError: try again.
            ScriptRefusedError: one of the channels can never be applied.
                The others may be applied.
                Apply each one alone to learn which.
        """
        calls: list[Call] = []
        for channel, events in batches:
            batch = Batch(self._keys, channel, events)
            args = origin.value, *self._lives, *batch.args
            calls.append((batch.keys, args))
        with redis_errors(), metrics.script.labels("apply").time():
            answers = await self._apply.call_all(calls)
        channels = [channel for channel, _ in batches]
        return [
            Applied(channel, *answer) for channel, answer in zip(channels, answers, strict=True)
        ]

    @retried
    async def sweep(self, channel: str) -> int:
        """Delete the channel's expired messages; return how many."""
        if not self._ttls.retention_seconds:
            return 0
        deleted = 0
        index = self._keys.messages(channel)
        scan_cursor = 0
        while True:
            scan_cursor, scored = await self._redis.zscan(
                index,
                scan_cursor,
                count=SWEEP_BATCH,
            )
            messages = [message for message, _ in scored]
            # Redis may answer more than was asked for.
            for batch in batched(messages, SWEEP_BATCH):
                deleted += await self._sweep_batch(channel, batch)
            if not scan_cursor:
                return deleted

    async def _sweep_batch(self, channel: str, messages: Sequence[Timetoken]) -> int:
        keys = [*self._keys.changed(channel)]
        for message in messages:
            keys += self._keys.message(channel, message)
        args: list[str | int] = [
            self._ttls.journal_seconds,
            self._ttls.retention_seconds,
            *messages,
        ]
        return int(await self._sweep.call(keys, args))
