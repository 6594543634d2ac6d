"""The tallies in Redis: applies events, deletes what expired."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from redis.asyncio import Redis

from worker.domain.action import Event, Origin
from worker.domain.entry import Outcome
from worker.domain.position import Timetoken
from worker.store.batch import Batch, batched
from worker.store.keys import Keys
from worker.store.redis_errors import redis_errors
from worker.store.redis_retry import RedisRetry
from worker.store.scripts import Call, call_script
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
    """What one script call did, between two journal heads."""

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
        """``apply_all`` raises even with a ``retry``; ``sweep`` waits."""
        super().__init__(redis, keys, retry)
        self._ttls = ttls or Ttls()

    async def apply_all(
        self, batches: Sequence[tuple[str, Sequence[Event]]], origin: Origin
    ) -> list[Applied]:
        """Apply events of several channels in one round trip.

        Each channel is applied by itself, atomically and in order.
        It may have ``batch.MAX_BATCH`` events.

        Raises:
            RedisUnavailableError: try again. To apply twice is to apply once.
            ScriptRefusedError: one of the channels can never be applied.
                Nothing of it was written. The others may be applied.
                Apply each one alone to learn which.
        """
        ttls = self._ttls
        options: tuple[str | int, ...] = (
            origin.value,
            ttls.tombstone_seconds,
            ttls.journal_seconds,
            ttls.retention_seconds,
        )
        calls: list[Call] = []
        for channel, events in batches:
            batch = Batch(self._keys, channel, events)
            calls.append((batch.keys, (*options, *batch.args)))
        with redis_errors(), metrics.script.labels("apply").time():
            answers = await call_script(self._redis, "apply", *calls)
        pairs = zip(batches, answers, strict=True)
        return [Applied(channel, *answer) for (channel, _), answer in pairs]

    @retried
    async def sweep(self, channel: str) -> int:
        """Delete the channel's expired messages; return how many."""
        if not self._ttls.retention_seconds:
            return 0
        deleted = 0
        index = self._keys.messages(channel)
        scan_cursor = 0
        while True:
            answer = await self._redis.zscan(index, scan_cursor, count=SWEEP_BATCH)
            scan_cursor, scored = answer
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
        args: list[str | int] = [self._ttls.journal_seconds, self._ttls.retention_seconds]
        args += messages
        (deleted,) = await call_script(self._redis, "sweep", (keys, args))
        return int(deleted)
