"""One script call.

It is sent while its events are fresh.
Its answer shows whether Redis went back.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from worker.applying.forgetting import mark_forgotten
from worker.applying.refusals import Refusals
from worker.domain.action import Origin
from worker.domain.entry import Outcome
from worker.errors import (
    MissingPermissionError,
    RolledBackError,
    ScriptRefusedError,
    StaleError,
)
from worker.source.endpoints import REQUEST_SECONDS
from worker.store.pending_repairs import GapCause
from worker.store.redis_retry import RedisRetry
from worker.store.script_call import Batch, CursorSave
from worker.store.store import Applied, Store, count_outcomes
from worker.store.tables import Tables
from worker.telemetry import metrics

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


@dataclass(slots=True)
class Sent:
    """What one script call did."""

    results: Sequence[Applied | ScriptRefusedError]
    """The result of each batch."""
    outcomes: Counter[Outcome]
    """How many events had each outcome."""


class Sender:
    """Sends batches by one script call, and checks the answer."""

    def __init__(
        self,
        store: Store,
        tables: Tables,
        retry: RedisRetry,
        refusals: Refusals,
        settle_seconds: float,
    ) -> None:
        """Events older than ``settle_seconds`` are not sent."""
        self._store = store
        self._tables = tables
        self._clock = retry.clock
        self._detector = retry.rollback_detector
        self._refusals = refusals
        self._settle_seconds = settle_seconds

    async def send(
        self,
        batches: Sequence[Batch],
        origin: Origin,
        read: ReadTime,
        cursors: Sequence[CursorSave],
    ) -> Sent:
        """Send batches, with the cursors to be saved.

        Raises:
            StaleError: the events waited for too long.
            RolledBackError: Redis went back.
        """
        channels = [channel for channel, _ in batches]
        self._raise_if_stale(read, channels)
        heads = list(map(self._detector.newest_head, channels))
        marks = self._detector.acknowledged.mark_count
        epoch = self._detector.epoch
        try:
            results, saved = await self._store.apply_all(batches, origin, cursors)
        except MissingPermissionError as error:
            await self._refusals.owe_half_applied(channels, error)
            raise

        self._detector.check_epoch(epoch)
        applied = self._checked(results, heads)
        if saved:
            self._tables.cursors.note_saved(cursors, saved, marks)
        outcomes = count_outcomes(applied)
        for outcome, count in outcomes.items():
            metrics.event_count(origin.value, outcome.value).inc(count)

        await mark_forgotten(self._tables, applied)
        is_late = read.is_late(self._clock(), self._settle_seconds)
        if is_late and outcomes[Outcome.APPLIED]:
            pending = self._tables.pending
            await pending.mark(channels, GapCause.UNPROVEN, is_new=False)
        return Sent(results, outcomes)

    def _raise_if_stale(
        self,
        read: ReadTime,
        channels: Sequence[str],
    ) -> None:
        if read.is_stale(self._clock(), self._settle_seconds):
            names = ", ".join(map(repr, channels[:3]))
            seconds = f"{self._settle_seconds:g} s"
            raise StaleError(f"events of {names} waited longer than {seconds}")

    def _checked(
        self,
        results: Sequence[Applied | ScriptRefusedError],
        heads: Sequence[str],
    ) -> list[Applied]:
        """Return what was applied.

        Raises:
            RolledBackError: Redis no longer held one of these heads.
        """
        observe = self._detector.observe
        applied: list[Applied] = []
        for result, head in zip(results, heads, strict=True):
            if not isinstance(result, Applied):
                continue
            channel = result.channel
            before, after = result.head_before, result.head_after
            if not observe(channel, head, before, after):
                reason = f"Redis has forgotten what was written to {channel!r}"
                raise RolledBackError(reason)
            applied.append(result)
        return applied
