"""Events into tallies: applied, or quarantined with a reason."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict

import structlog

from worker.domain.action import Event, Origin
from worker.domain.entry import Outcome
from worker.errors import ScriptRefusedError, TransientError
from worker.source.wire import Decoded, Malformed
from worker.store.batch import MAX_BATCH
from worker.store.pending_repairs import GapCause
from worker.store.redis_retry import RedisRetry
from worker.store.store import Store
from worker.store.tables import Tables
from worker.telemetry import metrics
from worker.telemetry.text import unquoted

EventsByChannel = Mapping[str, Sequence[Event]]
"""Channel → its events, in order."""
ChannelBatch = tuple[str, Sequence[Event]]
"""A channel, and those of its events that one script call applies."""
Parcel = Sequence[ChannelBatch]
"""The batches of one round trip."""

log = structlog.get_logger(__name__)


class StaleError(TransientError):
    """Events waited so long that their tombstones may be gone.

    They must be read again.
    """


class RolledBackError(StaleError):
    """Redis went back to an older state: go on from what it knows."""


class Applier:
    """Applies events of any channels, and waits while Redis is away."""

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
        self._tables = tables
        self._retry = retry
        self._settle_seconds = settle_seconds

    async def apply(
        self,
        decoded: Iterable[Decoded | Event],
        origin: Origin,
        received: float,
    ) -> Counter[Outcome]:
        """Apply all events, quarantine all malformed ones.

        Return how many events had each outcome.
        ``received`` is when they were read, in seconds of the clock.

        Raises:
            StaleError: the events waited longer than the settle time.
                Some of them may be applied, which does no harm.
            RolledBackError: Redis went back while they were applied.
        """
        events = await self._quarantine_malformed(decoded)
        outcomes: Counter[Outcome] = Counter()
        while events:
            calls = [self._apply_parcel(parcel, origin, received) for parcel in _parcels(events)]
            # Every call ends before the first error is raised:
            # none may outlive this method.
            for result in await asyncio.gather(*calls, return_exceptions=True):
                if isinstance(result, BaseException):
                    raise result
                outcomes.update(result)
            events = _left(events)
        return outcomes

    def is_stale(self, received: float) -> bool:
        """Whether events read at ``received`` are older than the settle time."""
        return self.clock() - received > self._settle_seconds

    async def quarantine(self, malformed: Malformed) -> None:
        """Keep what cannot be decoded or applied, with the reason."""
        channel, reason = malformed.channel, malformed.reason
        # The log gets the reason without quotations, which may be text of users.
        log.warning("quarantined", channel=channel, reason=unquoted(reason))
        metrics.quarantined.inc()
        await self._tables.dead_letters.add(channel, reason, malformed.payload)

    async def _quarantine_malformed(self, decoded: Iterable[Decoded | Event]) -> EventsByChannel:
        """Return the events by channel, each channel's in order."""
        events: dict[str, list[Event]] = {}
        for item in decoded:
            if isinstance(item, Malformed):
                await self.quarantine(item)
            elif item is not None:
                events.setdefault(item.identity.channel, []).append(item)
        return events

    async def _apply_parcel(
        self,
        parcel: Parcel,
        origin: Origin,
        received: float,
    ) -> Counter[Outcome]:
        """Apply some channels' events; where Redis refuses one, quarantine it."""
        try:
            return await self._retry.call(lambda: self._send(parcel, origin, received))
        except ScriptRefusedError as error:
            if _is_single(parcel):
                await self._refuse(parcel[0], error)
                return Counter()
        return await self._apply_halves(parcel, origin, received)

    async def _apply_halves(
        self,
        parcel: Parcel,
        origin: Origin,
        received: float,
    ) -> Counter[Outcome]:
        """Apply each half by itself, until a refused event stands alone."""
        outcomes: Counter[Outcome] = Counter()
        for half in _halves(parcel):
            outcomes += await self._apply_parcel(half, origin, received)
        return outcomes

    async def _send(
        self,
        parcel: Parcel,
        origin: Origin,
        received: float,
    ) -> Counter[Outcome]:
        """Send a parcel once.

        Check that Redis still holds what this process knows of.
        """
        if self.is_stale(received):
            raise self._stale(parcel)
        detector = self.rollback_detector
        heads = [detector.newest_head(channel) for channel, _ in parcel]
        results = await self._store.apply_all(parcel, origin)

        outcomes: Counter[Outcome] = Counter()
        for head, applied in zip(heads, results, strict=True):
            channel, before, after = applied.channel, applied.head_before, applied.head_after
            if not detector.observe(channel, head, before, after):
                raise RolledBackError(f"Redis has forgotten what was written to {channel!r}")
            outcomes.update(applied.counted)
        for outcome, count in outcomes.items():
            metrics.events.labels(origin.value, outcome.value).inc(count)
        return outcomes

    def _stale(self, parcel: Parcel) -> StaleError:
        names = ", ".join(repr(channel) for channel, _ in parcel[:3])
        seconds = f"{self._settle_seconds:g} s"
        return StaleError(f"events of {names} waited longer than {seconds}")

    async def _refuse(
        self,
        refused: ChannelBatch,
        error: ScriptRefusedError,
    ) -> None:
        """Quarantine an event that Redis refuses.

        Its channel needs a repair, because PubNub counts the event.
        """
        channel, (event,) = refused
        await self._tables.pending.mark([channel], GapCause.QUARANTINED)
        payload = json.dumps(asdict(event))
        await self.quarantine(Malformed(channel, str(error), payload))


def _left(events: EventsByChannel) -> EventsByChannel:
    """Return what exceeds one batch of each channel."""
    return {
        channel: batch[MAX_BATCH:] for channel, batch in events.items() if len(batch) > MAX_BATCH
    }


def _parcels(events: EventsByChannel) -> Iterator[Parcel]:
    """Yield one batch of each channel, in parcels for one round trip.

    A parcel has about as many events as one script call may carry.
    """
    parcel: list[ChannelBatch] = []
    size = 0
    for channel, waiting in events.items():
        batch = waiting[:MAX_BATCH]
        if parcel and size + len(batch) > MAX_BATCH:
            yield parcel
            parcel = []
            size = 0
        parcel.append((channel, batch))
        size += len(batch)
    if parcel:
        yield parcel


def _is_single(parcel: Parcel) -> bool:
    """Tell whether a parcel holds one event."""
    return len(parcel) == 1 and len(parcel[0][1]) == 1


def _halves(parcel: Parcel) -> tuple[Parcel, Parcel]:
    """Return a parcel's two halves.

    If it has one channel only, these are halves of its events.
    """
    if len(parcel) > 1:
        middle = len(parcel) // 2
        return parcel[:middle], parcel[middle:]
    [(channel, events)] = parcel
    middle = len(events) // 2
    return [(channel, events[:middle])], [(channel, events[middle:])]
