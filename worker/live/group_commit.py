"""Applies what many subscriptions bring in one round trip."""

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from worker.applying.apply import Applier
from worker.domain.action import Observed, Origin
from worker.domain.entry import Outcome
from worker.domain.position import TICKS_PER_SECOND
from worker.errors import StaleError
from worker.source.wire import Malformed
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
    callers: int = 0
    is_over: asyncio.Event = field(default_factory=asyncio.Event)
    error: Exception | None = None


class GroupCommit:
    """Applies one group at a time. What comes meanwhile is the next.

    Two hundred subscriptions with one event each need one round trip,
    instead of two hundred round trips over as many connections.
    """

    def __init__(self, applier: Applier) -> None:
        self._applier = applier
        self._waiting: deque[_Group] = deque()
        self._current: tuple[_Group, ...] = ()
        self._applying: asyncio.Task[None] | None = None

    async def apply(
        self,
        decoded: Sequence[Observed | Malformed],
        received_at: float,
    ) -> None:
        """Return when these events are applied.

        ``received_at`` is when they were read, in seconds of the clock.

        Raises:
            StaleError: the events waited for too long.
            RolledBackError: Redis went back while they were applied.
        """
        if not decoded:
            return
        group = self._join(decoded, received_at)
        try:
            await group.is_over.wait()
        except asyncio.CancelledError:
            group.callers -= 1
            await self._stop_if_abandoned()
            raise
        is_stale = self._applier.is_stale(received_at)
        if type(group.error) is StaleError and not is_stale:
            # Other events of the group were stale.
            # To read these again may open gaps.
            await self.apply(decoded, received_at)
        elif group.error:
            raise group.error

    def _join(
        self,
        decoded: Sequence[Observed | Malformed],
        received_at: float,
    ) -> _Group:
        """Add events to the newest group that waits."""
        if not self._waiting or len(self._waiting[-1].decoded) >= GROUP_EVENTS:
            self._waiting.append(_Group())
        group = self._waiting[-1]
        group.decoded += decoded
        group.oldest = min(group.oldest, received_at)
        group.callers += 1
        if self._applying is None or self._applying.done():
            self._applying = asyncio.create_task(self._apply_groups())
        return group

    async def _stop_if_abandoned(self) -> None:
        """Stop where no caller waits: the task must not outlive Redis."""
        groups = (*self._current, *self._waiting)
        callers = sum(group.callers for group in groups)
        if self._applying and not callers:
            task, self._applying = self._applying, None
            task.cancel()
            await asyncio.wait([task])

    async def _apply_groups(self) -> None:
        """Apply group after group, until nothing waits."""
        while self._waiting:
            group = self._waiting.popleft()
            self._current = (group,)
            try:
                decoded, oldest = group.decoded, group.oldest
                outcomes = await self._applier.apply(decoded, Origin.LIVE, oldest)
                self._report(group, outcomes)
            except asyncio.CancelledError:
                # Mostly no caller waits any more.
                # One that does, submits its events again.
                group.error = StaleError("the group was cut off")
                raise
            except Exception as error:  # each caller raises it
                group.error = error
            finally:
                group.is_over.set()
        self._current = ()
        self._applying = None

    def _report(self, group: _Group, outcomes: Counter[Outcome]) -> None:
        """Measure how late the events are, and log the outcomes."""
        now = time.time()
        for item in group.decoded:
            if not isinstance(item, Malformed):
                published = int(item.published) / TICKS_PER_SECOND
                metrics.lag.observe(max(0.0, now - published))
        counts = {outcome.value: count for outcome, count in outcomes.items()}
        log.debug("applied", subscriptions=group.callers, **counts)
