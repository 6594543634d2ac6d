"""What is not applied: events are quarantined, channels are marked for a repair."""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from typing import Final

import structlog

from worker.domain.action import Event
from worker.errors import (
    DamagedKeyError,
    MissingPermissionError,
    ScriptRefusedError,
)
from worker.source.wire import Malformed
from worker.store.pending_repairs import GapCause
from worker.store.rollback_detector import RollbackDetector
from worker.store.tables import Tables
from worker.telemetry import metrics
from worker.telemetry.text import unquoted

REPEAT_SECONDS: Final = 60.0
"""The trouble of a channel is logged so often, while events meet it."""

log = structlog.get_logger(__name__)


class Refusals:
    """Keeps what is not applied, and marks what PubNub counts nevertheless."""

    def __init__(
        self,
        tables: Tables,
        rollback_detector: RollbackDetector,
        clock: Callable[[], float],
    ) -> None:
        self._tables = tables
        self._rollback_detector = rollback_detector
        self._clock = clock
        self._logged_at: dict[str, float] = {}
        """Channel → when its trouble was logged, in seconds of the clock."""
        self._listeners: list[Callable[[Collection[str]], None]] = []

    def add_listener(self, listener: Callable[[Collection[str]], None]) -> None:
        """Call this with channels that were marked, from now on."""
        self._listeners.append(listener)

    async def quarantine(self, malformed: Malformed) -> None:
        """Keep what cannot be decoded or applied, with the reason."""
        channel, reason = malformed.channel, malformed.reason
        # The log gets no quotations, which may be text of users.
        log.warning("quarantined", channel=channel, reason=unquoted(reason))
        metrics.quarantined.inc()
        await self._tables.dead_letters.add(channel, reason, malformed.payload)

    async def quarantine_event(
        self,
        channel: str,
        event: Event,
        refusal: ScriptRefusedError,
    ) -> None:
        """Quarantine an event. Its channel needs a repair, because PubNub counts it."""
        await self._tables.pending.mark([channel], GapCause.QUARANTINED)
        payload = json.dumps(asdict(event))
        await self.quarantine(Malformed(channel, str(refusal), payload))

    async def owe(self, damage: DamagedKeyError) -> None:
        """Mark a channel. Its events are not kept, because PubNub lists them."""
        channel = damage.channel
        # A head that a person deletes is no sign that Redis went back.
        self._rollback_detector.acknowledged.forget_head(channel)
        is_due = await self._mark([channel], GapCause.DAMAGED_KEY)
        if is_due:
            reason = str(damage)
            key = damage.key
            log.error("key_damaged", channel=channel, key=key, reason=reason)

    async def owe_half_applied(
        self,
        channels: Sequence[str],
        error: MissingPermissionError,
    ) -> None:
        """Mark channels of which Redis may hold half a batch: a count may be wrong."""
        is_due = await self._mark(channels, GapCause.HALF_APPLIED)
        if is_due:
            count = len(channels)
            log.error("half_applied", channels=count, reason=str(error))

    async def _mark(self, channels: Sequence[str], cause: GapCause) -> bool:
        """Mark channels; return whether one of them is to be logged."""
        due = list(filter(self._is_due, channels))
        is_due = bool(due)
        await self._tables.pending.mark(channels, cause, is_new=is_due)
        self._logged_at |= dict.fromkeys(due, self._clock())
        for listener in self._listeners:
            listener(channels)
        return is_due

    def _is_due(self, channel: str) -> bool:
        """Tell whether a channel was not logged lately."""
        logged_at = self._logged_at.get(channel, -REPEAT_SECONDS)
        return self._clock() - logged_at >= REPEAT_SECONDS
