"""Events into tallies: applied, or quarantined with a reason, once Redis answers."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
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

ChannelEvents = tuple[str, Sequence[Event]]
"""A channel, and some of its events in order."""

log = structlog.get_logger(__name__)


class StaleError(TransientError):
    """Events waited so long that their tombstones may be gone: drop them, and read them again."""


class RolledBackError(StaleError):
    """Redis went back to an older state: drop what was read since, and go on from what it knows."""


class Applier:
    """Applies events of any channels, and waits while Redis is away."""

    def __init__(
        self, store: Store, tables: Tables, retry: RedisRetry, settle_seconds: float
    ) -> None:
        """Events that are older than ``settle_seconds`` are not applied but read again."""
        self._store = store
        self._tables = tables
        self._retry = retry
        self._settle_seconds = settle_seconds
        self.clock = retry.clock
        self.rollback_detector = retry.rollback_detector

    async def apply(
        self, decoded: Iterable[Decoded | Event], origin: Origin, received: float
    ) -> Counter[Outcome]:
        """Apply all events, quarantine all malformed ones; return how many had each outcome.

        ``received`` is when they were read, in seconds of the clock.

        Raises:
            StaleError: they waited longer than the settle time. Some may be applied: no harm.
            RolledBackError: Redis went back while they were applied.
        """
        events = await self._quarantine_malformed(decoded)
        outcomes: Counter[Outcome] = Counter()
        while events:
            layer, events = _first_batches(events)
            calls = [self._apply_parcel(parcel, origin, received) for parcel in _parcels(layer)]
            # Every call ends before the first error is raised: none may outlive this method.
            for result in await asyncio.gather(*calls, return_exceptions=True):
                if isinstance(result, BaseException):
                    raise result
                outcomes.update(result)
        return outcomes

    def is_stale(self, received: float) -> bool:
        """Whether events that were read at ``received`` have waited longer than the settle time."""
        return self.clock() - received > self._settle_seconds

    async def quarantine(self, malformed: Malformed) -> None:
        """Keep what cannot be understood, with the reason."""
        # The log gets the reason without quotations: strangers chose their words.
        log.warning("quarantined", channel=malformed.channel, reason=unquoted(malformed.reason))
        metrics.quarantined.inc()
        await self._tables.dead_letters.add(malformed.channel, malformed.reason, malformed.payload)

    async def _quarantine_malformed(
        self, decoded: Iterable[Decoded | Event]
    ) -> dict[str, list[Event]]:
        """Return the events by channel, each channel's in order."""
        events: dict[str, list[Event]] = {}
        for item in decoded:
            if isinstance(item, Malformed):
                await self.quarantine(item)
            elif item is not None:
                events.setdefault(item.identity.channel, []).append(item)
        return events

    async def _apply_parcel(
        self, parcel: Sequence[ChannelEvents], origin: Origin, received: float
    ) -> Counter[Outcome]:
        """Apply some channels' events; where Redis refuses one, halve until it stands alone."""
        try:
            return await self._retry.call(lambda: self._send(parcel, origin, received))
        except ScriptRefusedError as error:
            if len(parcel) == len(parcel[0][1]) == 1:
                await self._refuse(parcel[0], error)
                return Counter()
        outcomes: Counter[Outcome] = Counter()
        for half in _halves(parcel):
            outcomes += await self._apply_parcel(half, origin, received)
        return outcomes

    async def _send(
        self, parcel: Sequence[ChannelEvents], origin: Origin, received: float
    ) -> Counter[Outcome]:
        """Send a parcel once, and check that Redis still holds what this process knows of."""
        if self.is_stale(received):
            names = ", ".join(repr(channel) for channel, _ in parcel[:3])
            seconds = f"{self._settle_seconds:g} s"
            raise StaleError(f"events of {names} waited longer than {seconds}")
        detector = self.rollback_detector
        heads = [detector.newest_head(channel) for channel, _ in parcel]
        outcomes: Counter[Outcome] = Counter()
        for head, applied in zip(heads, await self._store.apply_all(parcel, origin), strict=True):
            channel = applied.channel
            if not detector.observe(channel, head, applied.head_before, applied.head_after):
                raise RolledBackError(f"Redis has forgotten what was written to {channel!r}")
            outcomes.update(applied.counted)
        for outcome, count in outcomes.items():
            metrics.events.labels(origin.value, outcome.value).inc(count)
        return outcomes

    async def _refuse(self, refused: ChannelEvents, error: ScriptRefusedError) -> None:
        """Quarantine an event that Redis refuses; its channel needs a repair, as PubNub counts it."""
        channel, (event,) = refused
        await self._tables.pending.mark([channel], GapCause.QUARANTINED)
        await self.quarantine(Malformed(channel, str(error), json.dumps(asdict(event))))


def _first_batches(
    events: dict[str, list[Event]],
) -> tuple[list[ChannelEvents], dict[str, list[Event]]]:
    """Return the first ``MAX_BATCH`` events of each channel, and what is left: mostly nothing."""
    batches: list[ChannelEvents] = [(channel, some[:MAX_BATCH]) for channel, some in events.items()]
    left = {channel: some[MAX_BATCH:] for channel, some in events.items() if len(some) > MAX_BATCH}
    return batches, left


def _parcels(batches: Iterable[ChannelEvents]) -> Iterator[list[ChannelEvents]]:
    """Yield the batches in round trips of about as many events as one script call may carry."""
    parcel: list[ChannelEvents] = []
    size = 0
    for batch in batches:
        if parcel and size + len(batch[1]) > MAX_BATCH:
            yield parcel
            parcel, size = [], 0
        parcel.append(batch)
        size += len(batch[1])
    if parcel:
        yield parcel


def _halves(parcel: Sequence[ChannelEvents]) -> tuple[Sequence[ChannelEvents], ...]:
    """Return a parcel's two halves: of its channels, or of its only channel's events."""
    if len(parcel) > 1:
        middle = len(parcel) // 2
        return parcel[:middle], parcel[middle:]
    [(channel, events)] = parcel
    middle = len(events) // 2
    return [(channel, events[:middle])], [(channel, events[middle:])]
