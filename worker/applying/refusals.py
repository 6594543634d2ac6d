"""What is not applied: events are quarantined, channels are marked for a repair."""

import json
from collections.abc import Sequence

import structlog
from msgspec import to_builtins

from worker.domain.action import Event
from worker.errors import (
    DamagedKeyError,
    MissingPermissionError,
    ScriptRefusedError,
)
from worker.source.wire import Malformed
from worker.store.acknowledged import Acknowledged
from worker.store.pending_repairs import GapCause
from worker.store.tables import Tables
from worker.telemetry import metrics
from worker.telemetry.text import unquoted

log = structlog.get_logger(__name__)


class Refusals:
    """Keeps what is not applied, and marks what PubNub counts nevertheless."""

    def __init__(self, tables: Tables, acknowledged: Acknowledged) -> None:
        self._tables = tables
        self._acknowledged = acknowledged

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
        payload = json.dumps(to_builtins(event))
        await self.quarantine(Malformed(channel, str(refusal), payload))

    async def owe_damaged(self, damage: DamagedKeyError) -> None:
        """Mark a channel. Its events are not kept, because PubNub lists them."""
        channel = damage.channel
        # A head that a person deletes is no sign that Redis went back.
        self._acknowledged.forget_head(channel)
        if await self._mark([channel], GapCause.DAMAGED_KEY):
            log.error("key_damaged", channel=channel, key=damage.key, reason=str(damage))

    async def owe_half_applied(
        self,
        channels: Sequence[str],
        error: MissingPermissionError,
    ) -> None:
        """Mark channels of which Redis may hold half a batch: a count may be wrong."""
        if await self._mark(channels, GapCause.HALF_APPLIED):
            log.error("half_applied", channels=len(channels), reason=str(error))

    async def _mark(self, channels: Sequence[str], cause: GapCause) -> bool:
        """Mark channels; return whether one of them had no such mark."""
        pending = self._tables.pending
        marks = await pending.read_all(channels)
        is_new = any(cause not in marks.get(channel, ()) for channel in channels)
        await pending.mark(channels, cause, is_new=is_new)
        return is_new
