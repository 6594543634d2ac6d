"""Applies what many subscriptions bring in one round trip."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from worker.applying.apply import Applier
from worker.domain.action import Observed, Origin
from worker.domain.entry import Outcome
from worker.domain.position import TICKS_PER_SECOND
from worker.errors import CutOffError, StaleError
from worker.source.wire import Malformed
from worker.store.script_call import CursorSave
from worker.telemetry import metrics

GROUP_EVENTS: Final = 2_000
"""Events after which a group is full."""

log = structlog.get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class _Group:
    """Events of several callers, which are applied together."""

    decoded: list[Observed | Malformed] = field(default_factory=list)
    oldest: float = math.inf
    """When the first of them was read, in seconds of the clock."""
    cursors: list[CursorSave] = field(default_factory=list)
    """What each caller saves in the end."""
    is_over: asyncio.Event = field(default_factory=asyncio.Event)
    error: Exception | None = None


class GroupCommit:
    """Applies one group at a time. What comes meanwhile is the next.

    Two hundred subscriptions with one event each need one round trip,
    instead of two hundred round trips over as many connections.
    The first caller of a group applies it for the others.
    """

    def __init__(self, applier: Applier) -> None:
        self._applier = applier
        self._open: _Group | None = None
        self._turn = asyncio.Lock()

    async def apply(
        self,
        decoded: Sequence[Observed | Malformed],
        received_at: float,
        save: CursorSave,
    ) -> None:
        """Return when these events are applied, and the cursor is saved.

        ``received_at`` is when they were read, in seconds of the clock.

        Raises:
            StaleError: the events waited for too long.
            CutOffError: the first caller of the group was cancelled.
            RolledBackError: Redis went back while they were applied.
        """
        group, is_first = self._join(decoded, received_at, save)
        if is_first:
            await self._apply(group)
        else:
            await group.is_over.wait()
        if group.error is None:
            return
        is_stale = bool(decoded) and self._applier.is_stale(received_at)
        if type(group.error) is StaleError and not is_stale:
            # Other events of the group were stale.
            # To read these again may open gaps.
            await self.apply(decoded, received_at, save)
        else:
            raise group.error

    def _join(
        self,
        decoded: Sequence[Observed | Malformed],
        received_at: float,
        save: CursorSave,
    ) -> tuple[_Group, bool]:
        """Add events to the group that waits; return it, and whether they are its first."""
        group = self._open
        if group is None or len(group.decoded) >= GROUP_EVENTS:
            group = self._open = _Group()
        is_first = not group.cursors
        group.cursors.append(save)
        if decoded:
            group.decoded += decoded
            group.oldest = min(group.oldest, received_at)
        return group, is_first

    async def _apply(self, group: _Group) -> None:
        """Wait for the groups before, and apply this one."""
        group.error = CutOffError("the group was cut off")
        try:
            async with self._turn:
                if self._open is group:
                    self._open = None
                outcomes = await self._applier.apply(
                    group.decoded,
                    Origin.LIVE,
                    group.oldest,
                    cursors=group.cursors,
                )
            group.error = None
            self._report(group, outcomes)
        except Exception as error:  # each caller raises it
            group.error = error
        finally:
            # Cancelled while it waited: nobody may join it any more.
            if self._open is group:
                self._open = None
            group.is_over.set()

    def _report(self, group: _Group, outcomes: Counter[Outcome]) -> None:
        """Measure how late the events are, and log the outcomes."""
        now = time.time()
        # PubNub's clock may be ahead of ours, for each event by itself.
        ages = [
            max(0.0, now - int(item.published) / TICKS_PER_SECOND)
            for item in group.decoded
            if not isinstance(item, Malformed)
        ]
        metrics.lag.observe_all(ages)
        counts = {outcome.value: count for outcome, count in outcomes.items()}
        log.debug("applied", subscriptions=len(group.cursors), **counts)
