"""Between source and store: whatever was decoded becomes applied, or quarantined; nothing is dropped."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Final, Protocol, TypeVar

import structlog

from worker.domain.action import Event, Origin
from worker.domain.entry import Outcome
from worker.errors import (
    RedisReplacedError,
    RedisUnavailableError,
    ScriptRefusedError,
    TransientError,
)
from worker.source.wire import Decoded, Malformed
from worker.store.batch import MAX_BATCH
from worker.store.marks import GapCause, Marks
from worker.store.rollback_detector import RollbackDetector
from worker.store.store import Store
from worker.telemetry import metrics
from worker.telemetry.text import unquoted
from worker.telemetry.throttled_warning import ThrottledWarning

FIRST_RETRY_SECONDS: Final = 0.1
LONGEST_RETRY_SECONDS: Final = 5.0

Result = TypeVar("Result")
Events = tuple[str, Sequence[Event]]
"""A channel, and some events of it."""
log = structlog.get_logger(__name__)


class StaleError(TransientError):
    """What was read has waited so long that its tombstones may be gone: drop it, and read it again."""


class RolledBackError(StaleError):
    """Redis went back to an older state: drop what was read since, and go on from what Redis still knows."""


class Recovery(Protocol):
    """What must be done before anything is written to a Redis that went back."""

    async def run(self) -> None:
        """Do it, once for all who ask at the same time."""


class Applier:
    """Applies events channel by channel, holding on while Redis is away."""

    def __init__(
        self,
        store: Store,
        marks: Marks,
        settle_seconds: float,
        clock: Callable[[], float],
        rollback_detector: RollbackDetector | None = None,
        recovery: Recovery | None = None,
    ) -> None:
        self._store = store
        self._marks = marks
        self._settle_seconds = settle_seconds
        self.clock = clock
        self.rollback_detector = rollback_detector or RollbackDetector()
        self._recovery = recovery
        self._warning = ThrottledWarning(log, "redis_unavailable", "redis_answers_again", clock)

    async def apply(
        self, decoded: Iterable[Decoded | Event], origin: Origin, received: float
    ) -> Counter[Outcome]:
        """Apply all events, quarantine all that is malformed; return how many had each outcome.

        ``received`` is when they were read, in seconds of the clock.

        Raises:
            StaleError: they have waited longer than the settle time; some may be applied, which does no harm.
            ForgottenError: Redis went back while they were applied.
        """
        by_channel: dict[str, list[Event]] = {}
        for item in decoded:
            if isinstance(item, Malformed):
                await self.quarantine(item)
            elif item is not None:
                by_channel.setdefault(item.identity.channel, []).append(item)
        outcomes: Counter[Outcome] = Counter()
        while (
            by_channel
        ):  # a channel's events in order, MAX_BATCH at once; nearly always that is all of them
            layer = [(channel, events[:MAX_BATCH]) for channel, events in by_channel.items()]
            by_channel = {
                channel: rest
                for channel, events in by_channel.items()
                if (rest := events[MAX_BATCH:])
            }
            calls = [self._apply_some(some, origin, received) for some in _parcels(layer)]
            # All calls end before the first error is raised: one that is still under way must not outlive this one.
            for ended in await asyncio.gather(*calls, return_exceptions=True):
                if isinstance(ended, BaseException):
                    raise ended
                outcomes.update(ended)
        return outcomes

    def expect_fresh(self, received: float, what: str) -> None:
        """Refuse what was read too long ago; ``received`` is when, in seconds of the clock.

        Raises:
            StaleError: it has waited longer than the settle time.
        """
        if self.clock() - received > self._settle_seconds:
            raise StaleError(f"{what} waited longer than {self._settle_seconds:g} s")

    async def insist(self, call: Callable[[], Awaitable[Result]]) -> Result:
        """Return what the call returns, trying again for as long as Redis is away.

        A Redis that went back is recovered first: whatever it may have forgotten is owed before anything is written.
        """
        wait = FIRST_RETRY_SECONDS
        me = object()
        try:
            while True:
                try:
                    if self.rollback_detector.is_suspect and self._recovery:
                        await self._recovery.run()
                    result = await call()
                except RedisUnavailableError as error:
                    metrics.redis_failures.inc()
                    if not isinstance(error, RedisReplacedError):
                        self._warning.failing(me, reason=str(error))
                    await asyncio.sleep(wait)
                    wait = min(LONGEST_RETRY_SECONDS, wait * 2)
                else:
                    if wait > FIRST_RETRY_SECONDS:
                        self._warning.recovered(me)
                    return result
        finally:
            self._warning.drop(me)

    async def quarantine(self, malformed: Malformed) -> None:
        """Keep what cannot be understood, with its reason."""
        # What it says of itself stays in the quarantine.
        log.warning("quarantined", channel=malformed.channel, reason=unquoted(malformed.reason))
        metrics.quarantined.inc()
        await self.insist(
            lambda: self._marks.quarantine(malformed.channel, malformed.reason, malformed.payload)
        )

    async def _apply_some(
        self, batches: Sequence[Events], origin: Origin, received: float
    ) -> Counter[Outcome]:
        """Apply a batch of each of some channels; where Redis refuses one, halve until the event stands alone."""

        async def call() -> Counter[Outcome]:
            self.expect_fresh(
                received, f"a batch for {', '.join(repr(channel) for channel, _ in batches[:3])}"
            )
            known = [self.rollback_detector.head(channel) for channel, _ in batches]
            outcomes: Counter[Outcome] = Counter()
            for head, applied in zip(
                known, await self._store.apply_all(batches, origin), strict=True
            ):
                channel = applied.batch.channel
                if not self.rollback_detector.follow(
                    channel, head, applied.head_before, applied.head_after
                ):
                    raise RolledBackError(f"Redis has forgotten what was written to {channel!r}")
                outcomes.update(applied.counted)
            for outcome, count in outcomes.items():
                metrics.events.labels(origin.value, outcome.value).inc(count)
            return outcomes

        try:
            return await self.insist(call)
        except ScriptRefusedError as error:
            channel, events = batches[0]
            if len(batches) == len(events) == 1:
                await self._refuse(channel, events[0], error)
                return Counter()
        if len(batches) == 1:
            middle = len(events) // 2
            parts = [(channel, events[:middle])], [(channel, events[middle:])]
        else:
            middle = len(batches) // 2
            parts = list(batches[:middle]), list(batches[middle:])
        return sum(
            [await self._apply_some(part, origin, received) for part in parts], Counter[Outcome]()
        )

    async def _refuse(self, channel: str, event: Event, error: ScriptRefusedError) -> None:
        """Quarantine an event that Redis refuses for ever; its channel is owed, for PubNub still counts it."""
        await self.insist(lambda: self._marks.owe([channel], GapCause.QUARANTINED))
        await self.quarantine(Malformed(channel, str(error), json.dumps(asdict(event))))


def _parcels(batches: Iterable[Events]) -> Iterator[list[Events]]:
    """Yield the batches in parts that are worth a round trip: about as many events as one script call may carry."""
    parcel: list[Events] = []
    size = 0
    for batch in batches:
        if parcel and size + len(batch[1]) > MAX_BATCH:
            yield parcel
            parcel, size = [], 0
        parcel.append(batch)
        size += len(batch[1])
    if parcel:
        yield parcel
