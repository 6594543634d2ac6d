"""Events into tallies: applied, or quarantined with a reason.

A batch is the events of one channel that one script call applies.
One round trip carries several batches.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from worker.applying.forgetting import mark_forgotten
from worker.applying.refusals import Refusals
from worker.domain.action import Event, Origin
from worker.domain.entry import Outcome
from worker.errors import (
    DamagedKeyError,
    MissingPermissionError,
    RolledBackError,
    ScriptRefusedError,
    StaleError,
)
from worker.source.endpoints import REQUEST_SECONDS
from worker.source.wire import Decoded, Malformed
from worker.store.batch import MAX_BATCH
from worker.store.pending_repairs import GapCause
from worker.store.redis_retry import RedisRetry
from worker.store.store import Store
from worker.store.tables import Tables
from worker.telemetry import metrics

Batches = Sequence[tuple[str, Sequence[Event]]]
"""The batches of one round trip: each a channel and its events."""

LONGEST_ANSWER_SECONDS: Final = 2.0 * REQUEST_SECONDS
"""An answer cannot take longer while this machine is awake.

A request may be sent twice.
"""


@dataclass(frozen=True, slots=True)
class ReadTime:
    """When PubNub was asked for events, and when they came.

    Both are in seconds of the clock.
    """

    received_at: float
    asked_at: float

    def is_stale(self, now: float, settle_seconds: float) -> bool:
        """Tell whether the events must be read again.

        They may wait for a settle time after they came,
        however long the answer took.
        If it took longer than any request may, the machine slept.
        """
        has_waited = now - self.received_at > settle_seconds
        longest = settle_seconds + LONGEST_ANSWER_SECONDS
        has_slept = now - self.asked_at > longest
        return has_waited or has_slept

    def is_late(self, now: float, settle_seconds: float) -> bool:
        """Tell whether what the events have changed must be looked at again.

        A page shows the list as it was when it was asked for, or later.
        Another process may have looked at the channel meanwhile,
        and have taken back the mark of a gap.
        It began a settle time after the gap, so it saw what this page lacks.
        An action that was removed in the gap, and that this page makes live,
        would then stay for ever.
        A page that changes nothing has done no harm.
        So this ends, however slow PubNub is.
        """
        return now - self.asked_at > settle_seconds


class Applier:
    """Applies events of any channels; waits while Redis is away."""

    def __init__(
        self,
        store: Store,
        tables: Tables,
        retry: RedisRetry,
        settle_seconds: float,
    ) -> None:
        """Events older than ``settle_seconds`` are read again."""
        self.clock = retry.clock
        self.rollback_detector = retry.rollback_detector
        self._store = store
        self._retry = retry
        self._settle_seconds = settle_seconds
        self._tables = tables
        self._refusals = Refusals(tables, retry.rollback_detector.acknowledged)

    async def apply(
        self,
        decoded: Iterable[Decoded | Event],
        origin: Origin,
        received_at: float,
        asked_at: float | None = None,
    ) -> Counter[Outcome]:
        """Apply events; quarantine malformed ones; count the outcomes.

        ``received_at`` is when they were read, in seconds of the clock.
        ``asked_at`` is when PubNub was asked for a page of history.

        Raises:
            StaleError: the events waited longer than the settle time.
                Some may be applied, which does no harm.
            RolledBackError: Redis went back while they were applied.
            DamagedKeyError: a key of a channel is damaged, and the events are not live.
                What does not need that key is applied. Either way the channel is owed.
        """
        waiting: dict[str, list[Event]] = {}
        malformed: list[Malformed] = []
        for item in decoded:
            if isinstance(item, Malformed):
                malformed.append(item)
            elif item:
                waiting.setdefault(item.identity.channel, []).append(item)

        if asked_at is None:
            asked_at = received_at
        read = ReadTime(received_at, asked_at)
        outcomes = await self._apply_waiting(waiting, origin, read)
        # Last: what is read again because it was stale is quarantined once.
        for item in malformed:
            await self._refusals.quarantine(item)
        return outcomes

    async def _apply_waiting(
        self,
        waiting: dict[str, list[Event]],
        origin: Origin,
        read: ReadTime,
    ) -> Counter[Outcome]:
        """Apply events by channel, in rounds of at most a batch for each channel."""
        outcomes: Counter[Outcome] = Counter()
        while waiting:
            calls = [
                self._apply_batches(batches, origin, read) for batches in _next_batches(waiting)
            ]
            # Every call ends before the first error is raised:
            # none may outlive this method.
            for result in await asyncio.gather(*calls, return_exceptions=True):
                if isinstance(result, BaseException):
                    raise result
                outcomes.update(result)
        return outcomes

    def is_stale(self, received_at: float) -> bool:
        """Tell whether live events of that time must be read again."""
        read = ReadTime(received_at, received_at)
        return read.is_stale(self.clock(), self._settle_seconds)

    async def _apply_batches(
        self,
        batches: Batches,
        origin: Origin,
        read: ReadTime,
    ) -> Counter[Outcome]:
        """Apply batches; quarantine each event that Redis refuses.

        Halves are applied alone until a refused event stands alone.
        """
        try:
            return await self._retry.call(lambda: self._send(batches, origin, read))
        except ScriptRefusedError as error:
            refusal = error

        outcomes: Counter[Outcome] = Counter()
        for part in await self._parts(batches, refusal):
            outcomes += await self._apply_batches(part, origin, read)
        if isinstance(refusal, DamagedKeyError) and origin is not Origin.LIVE:
            raise refusal
        return outcomes

    async def _parts(
        self,
        batches: Batches,
        refusal: ScriptRefusedError,
    ) -> Sequence[Batches]:
        """Return the parts of refused batches that may be applied alone."""
        if isinstance(refusal, DamagedKeyError):
            await self._refusals.owe_damaged(refusal)
            return _without_message(batches, refusal.key)
        halves = _halves(batches)
        if not halves:
            [(channel, [event])] = batches
            await self._refusals.quarantine_event(channel, event, refusal)
        return halves

    async def _send(
        self,
        batches: Batches,
        origin: Origin,
        read: ReadTime,
    ) -> Counter[Outcome]:
        """Send batches once; check that Redis did not go back."""
        channels = [channel for channel, _ in batches]
        if read.is_stale(self.clock(), self._settle_seconds):
            names = ", ".join(map(repr, channels[:3]))
            seconds = f"{self._settle_seconds:g} s"
            raise StaleError(f"events of {names} waited longer than {seconds}")
        detector = self.rollback_detector
        heads = list(map(detector.newest_head, channels))
        try:
            results = await self._store.apply_all(batches, origin)
        except MissingPermissionError as error:
            await self._refusals.owe_half_applied(channels, error)
            raise

        outcomes: Counter[Outcome] = Counter()
        for head, applied in zip(heads, results, strict=True):
            channel = applied.channel
            before, after = applied.head_before, applied.head_after
            if not detector.observe(channel, head, before, after):
                reason = f"Redis has forgotten what was written to {channel!r}"
                raise RolledBackError(reason)
            outcomes.update(applied.counted)
        for outcome, count in outcomes.items():
            metrics.events.labels(origin.value, outcome.value).inc(count)
        await mark_forgotten(self._tables, results)
        is_late = read.is_late(self.clock(), self._settle_seconds)
        if outcomes[Outcome.APPLIED] and is_late:
            cause = GapCause.UNPROVEN
            await self._tables.pending.mark(channels, cause, is_new=False)
        return outcomes


def _next_batches(waiting: dict[str, list[Event]]) -> Iterator[Batches]:
    """Take one batch of each channel; yield the batches of each round trip.

    A round trip has about as many events as a script call may carry.
    """
    batches: list[tuple[str, Sequence[Event]]] = []
    size = 0
    for channel in list(waiting):
        events = waiting.pop(channel)
        batch = events[:MAX_BATCH]
        if len(events) > MAX_BATCH:
            waiting[channel] = events[MAX_BATCH:]
        if size + len(batch) > MAX_BATCH:
            yield batches
            batches = []
            size = 0
        batches.append((channel, batch))
        size += len(batch)
    yield batches


def _without_message(batches: Batches, key: str) -> Sequence[Batches]:
    """Return the events of other messages, if the key is that of a message."""
    [(channel, events)] = batches
    message = key.rpartition(":")[2]
    rest = [event for event in events if event.identity.message_timetoken != message]
    return [[(channel, rest)]] if 0 < len(rest) < len(events) else []


def _halves(batches: Batches) -> Sequence[Batches]:
    """Return two halves: of the channels, or of the events of one."""
    if len(batches) > 1:
        middle = len(batches) // 2
        return batches[:middle], batches[middle:]
    [(channel, events)] = batches
    middle = len(events) // 2
    if not middle:
        return ()
    return [(channel, events[:middle])], [(channel, events[middle:])]
