"""The tallies in Redis: one script call applies a batch of one channel's events."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from worker.domain.action import Event, Origin
from worker.domain.entry import Outcome
from worker.store import scripts
from worker.store.batch import Batch
from worker.store.batched import batched
from worker.store.connection import redis_errors
from worker.store.keys import Keys
from worker.store.redis_retry import RedisRetry, retried
from worker.telemetry import metrics

SWEEP_BATCH: Final = 100
"""Messages a sweep deletes at once."""


@dataclass(frozen=True, slots=True)
class Ttls:
    """How long things live, in seconds; ``retention_seconds`` is the age at which a message expires (0: never)."""

    tombstone_seconds: int = 3600
    journal_seconds: int = 86400
    retention_seconds: int = 0


@dataclass(frozen=True, slots=True)
class Applied:
    """What one script call did, and the journal's head before and after it."""

    batch: Batch
    head_before: str
    head_after: str
    letters: str
    """An outcome each, as the script abbreviates them, in its own order."""

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """An outcome for each event, in the order they were given."""
        return self.batch.outcomes(self.letters)

    @property
    def counted(self) -> Counter[Outcome]:
        """How many events had each outcome."""
        return self.batch.count(self.letters)


class Store:
    """Applies events."""

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        ttls: Ttls | None = None,
        retry: RedisRetry | None = None,
    ) -> None:
        """With a ``retry``, ``sweep`` waits while Redis is away. ``apply`` always raises."""
        self._keys = keys
        self._ttls = ttls or Ttls()
        self.retry = retry
        self._redis = cast("Any", redis)
        self._script = scripts.source("apply")
        self._sha = redis.register_script(self._script).sha
        self._sweep = redis.register_script(scripts.source("sweep"))

    async def apply(self, channel: str, events: Sequence[Event], origin: Origin) -> Applied:
        """Apply up to ``batch.MAX_BATCH`` events of one channel, atomically and in order.

        Raises:
            RedisUnavailableError: try again; applying twice is applying once.
            ScriptRefusedError: an event among these can never be applied; nothing was written.
        """
        (applied,) = await self.apply_all([(channel, events)], origin)
        return applied

    async def apply_all(
        self, batches: Sequence[tuple[str, Sequence[Event]]], origin: Origin
    ) -> list[Applied]:
        """Apply a batch each of several channels, in one round trip; each by itself, as ``apply`` does.

        Raises:
            RedisUnavailableError: try again.
            ScriptRefusedError: one of these can never be applied; the others may be. Apply each alone to know which.
        """
        made = [Batch(self._keys, channel, events) for channel, events in batches]
        with redis_errors(), metrics.script.labels("apply").time():
            try:
                told = await self._send(made, origin)
            except NoScriptError:
                await self._redis.script_load(self._script)
                told = await self._send(made, origin)
        return [Applied(batch, *answer) for batch, answer in zip(made, told, strict=True)]

    async def _send(self, batches: Sequence[Batch], origin: Origin) -> Sequence[Any]:
        terms = self._terms(origin)
        if len(batches) == 1:  # what is refused alone is told in Redis's own words
            (batch,) = batches
            return [
                await self._redis.evalsha(
                    self._sha, len(batch.keys), *batch.keys, *terms, *batch.args
                )
            ]
        # Not by calling the script: in a pipeline redis-py asks each time whether Redis knows it, a round trip more.
        pipe = self._redis.pipeline(transaction=False)
        for batch in batches:
            pipe.evalsha(self._sha, len(batch.keys), *batch.keys, *terms, *batch.args)
        return cast("Sequence[Any]", await pipe.execute())

    def _terms(self, origin: Origin) -> tuple[str | int, ...]:
        ttls = self._ttls
        return origin.value, ttls.tombstone_seconds, ttls.journal_seconds, ttls.retention_seconds

    @retried
    async def sweep(self, channel: str) -> int:
        """Delete the channel's messages that are older than the retention; return how many.

        Raises:
            RedisUnavailableError: try again.
        """
        swept, place = 0, 0
        while self._ttls.retention_seconds:
            with redis_errors():
                place, found = await self._redis.zscan(
                    self._keys.messages(channel), place, count=SWEEP_BATCH
                )
            for batch in batched([message for message, _ in found], SWEEP_BATCH):
                swept += await self._sweep_some(channel, batch)
            if not place:
                break
        return swept

    async def _sweep_some(self, channel: str, messages: Sequence[str]) -> int:
        names = self._keys
        keys = [names.messages(channel), names.journal(channel), names.head(channel)]
        for message in messages:
            keys += names.message(channel, message)
        args: list[str | int] = [
            self._ttls.journal_seconds,
            self._ttls.retention_seconds,
            *messages,
        ]
        with redis_errors():
            return int(await self._sweep(keys=keys, args=args))
