"""The tallies in Redis: applies events, rebuilds counts, deletes what expired."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from redis.asyncio import Redis

from worker.domain.action import Event, Origin
from worker.domain.entry import Outcome
from worker.domain.position import Timetoken
from worker.errors import ScriptRefusedError
from worker.store.audit import Suspect
from worker.store.batch import MAX_BATCH, Batch, batched
from worker.store.damage import (
    damaged_key,
    sentence,
    types_of_messages,
    wrong_type,
)
from worker.store.keys import Keys, action_prefix
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
EVERY_AGE: Final = -1
"""The retention of a sweep that deletes every message."""


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
    messages_before: int
    """How many messages the channel had."""

    @property
    def counted(self) -> Counter[Outcome]:
        """How many events had each outcome."""
        counts = Counter(self.letters)
        return Counter({OUTCOMES[letter]: counts[letter] for letter in counts})


class Store(Table):
    """Applies events, rebuilds counts, and deletes expired messages."""

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        ttls: Ttls | None = None,
        retry: RedisRetry | None = None,
    ) -> None:
        """``apply_all`` raises even with a ``retry``; the others wait."""
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
            DamagedKeyError: likewise, if there is only one channel.
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
        try:
            with redis_errors(), metrics.script.labels("apply").time():
                answers = await call_script(self._redis, "apply", *calls)
        except ScriptRefusedError as error:
            if len(batches) == 1:
                await self._raise_damage(*batches[0], str(error))
            raise
        pairs = zip(batches, answers, strict=True)
        return [Applied(channel, *answer) for (channel, _), answer in pairs]

    async def _raise_damage(
        self,
        channel: str,
        events: Sequence[Event],
        refusal: str,
    ) -> None:
        """Raise a ``DamagedKeyError`` if a key of these events is damaged."""
        messages = {event.identity.message_timetoken for event in events}
        types = types_of_messages(self._keys, channel, messages)
        # The script names a key with a wrong value.
        named = refusal.rpartition(" in ")[2]
        if named in types:
            reason = sentence(named, "holds what the worker never writes")
            raise damaged_key(channel, named, reason)
        with redis_errors():
            damage = await wrong_type(self._redis, types)
        if damage:
            raise damaged_key(channel, *damage)

    @retried
    async def rebuild(self, channel: str, suspect: Suspect) -> bool:
        """Make a message's counts what its actions say; index it.

        What differs when the script runs is changed, and journaled.
        Return whether anything differed.

        Raises:
            ScriptRefusedError: a key has the wrong type.
        """
        calls: list[tuple[Sequence[str], Sequence[str]]] = []
        # Strays first: from then on they are not counted.
        calls += [((), part) for part in batched(suspect.strays, MAX_BATCH)]
        calls += [(part, ()) for part in batched(suspect.tallies, MAX_BATCH)]
        answers = [
            await self._rebuild(channel, suspect.message_timetoken, *call)
            for call in calls or [((), ())]
        ]
        return any(answers)

    async def _rebuild(
        self,
        channel: str,
        message: Timetoken,
        tallies: Sequence[str],
        strays: Sequence[str],
    ) -> bool:
        counts, actions, _ = self._keys.message(channel, message)
        keys = [*self._keys.changed(channel), counts, actions]
        args: list[str | int] = [self._ttls.journal_seconds, message, len(tallies)]
        args += [*tallies, *map(action_prefix, tallies), *strays]
        (answer,) = await call_script(self._redis, "rebuild", (keys, args))
        return bool(answer)

    @retried
    async def sweep(self, channel: str) -> int:
        """Delete the channel's expired messages; return how many."""
        retention = self._ttls.retention_seconds
        if not retention:
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
                deleted += await self._sweep_batch(channel, batch, retention)
            if not scan_cursor:
                return deleted

    @retried
    async def clear(self, channel: str) -> int:
        """Delete every message of a channel; return how many."""
        deleted = 0
        index = self._keys.messages(channel)
        while messages := await self._redis.zrange(index, 0, SWEEP_BATCH - 1):
            deleted += await self._sweep_batch(channel, messages, EVERY_AGE)
        return deleted

    async def _sweep_batch(
        self,
        channel: str,
        messages: Sequence[Timetoken],
        retention_seconds: int,
    ) -> int:
        keys = [*self._keys.changed(channel)]
        for message in messages:
            keys += self._keys.message(channel, message)
        args: list[str | int] = [
            self._ttls.journal_seconds,
            retention_seconds,
            *messages,
        ]
        (deleted,) = await call_script(self._redis, "sweep", (keys, args))
        return int(deleted)
