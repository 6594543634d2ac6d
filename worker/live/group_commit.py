"""Applies what many subscriptions bring in one round trip."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from worker.applying.apply import Applier
from worker.domain.action import Origin
from worker.domain.entry import Outcome
from worker.domain.position import TICKS_PER_SECOND
from worker.errors import RolledBackError, StaleError
from worker.source.wire import Decoded, Malformed
from worker.telemetry import metrics

GROUP_EVENTS: Final = 2_000
"""Events of one group. What exceeds them waits for the next group."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Submission:
    """Events of one subscription, and the future that its caller waits for."""

    decoded: Sequence[Decoded]
    received_at: float
    applied: asyncio.Future[None]


_Group = Sequence[_Submission]
"""Submissions that are applied together."""


class GroupCommit:
    """Applies one group of submissions at a time; what comes meanwhile is the next group.

    Two hundred subscriptions with one event each need one round trip,
    instead of two hundred round trips over as many connections.
    """

    def __init__(self, applier: Applier) -> None:
        self._applier = applier
        self._waiting: deque[_Submission] = deque()
        self._group: _Group = ()
        self._applying: asyncio.Task[None] | None = None

    async def apply(self, decoded: Sequence[Decoded], received_at: float) -> None:
        """Return when these events are applied.

        ``received_at`` is when they were read, in seconds of the clock.

        Raises:
            StaleError: the events waited for too long.
            RolledBackError: Redis went back while they were applied.
        """
        if not decoded:
            return
        applied = asyncio.get_running_loop().create_future()
        self._waiting.append(_Submission(decoded, received_at, applied))
        if self._applying is None:
            self._applying = asyncio.create_task(self._apply_groups())

        try:
            await applied
        except asyncio.CancelledError:
            await self._stop_if_abandoned()
            raise

    async def _stop_if_abandoned(self) -> None:
        """Stop where no caller waits any more.

        The task must not outlive its connection.
        """
        submissions = (*self._group, *self._waiting)
        is_abandoned = all(submission.applied.done() for submission in submissions)
        if self._applying and is_abandoned:
            self._applying.cancel()
            await asyncio.wait([self._applying])

    async def _apply_groups(self) -> None:
        """Apply group after group, until nothing waits."""
        try:
            while self._waiting:
                self._group = self._next_group()
                await self._apply_group(self._group)
        finally:
            self._applying = None
            self._group = ()

    def _next_group(self) -> _Group:
        """Return the oldest submissions, up to ``GROUP_EVENTS`` events."""
        group: list[_Submission] = []
        size = 0
        while self._waiting and size < GROUP_EVENTS:
            submission = self._waiting.popleft()
            group.append(submission)
            size += len(submission.decoded)
        return group

    async def _apply_group(self, group: _Group) -> None:
        """Apply one group, and let its callers go on."""
        decoded = [item for submission in group for item in submission.decoded]
        oldest = min(submission.received_at for submission in group)
        try:
            outcomes = await self._applier.apply(decoded, Origin.LIVE, oldest)
        except RolledBackError as error:
            _end(group, error)
        except StaleError as error:
            self._drop_stale(group, error)
        except Exception as error:  # the callers, who brought the events, raise it
            _end(group, error)
        else:
            _end(group)
            self._report(group, decoded, outcomes)

    def _drop_stale(self, group: _Group, error: StaleError) -> None:
        """Drop only what waited for too long.

        To read the other events again would be a load, and may open gaps.
        """
        fresh: list[_Submission] = []
        stale: list[_Submission] = []
        for submission in group:
            is_stale = self._applier.is_stale(submission.received_at)
            (stale if is_stale else fresh).append(submission)
        if not stale:
            _end(group, error)
            return
        _end(stale, error)
        self._waiting.extendleft(reversed(fresh))

    def _report(
        self, group: _Group, decoded: Sequence[Decoded], outcomes: Counter[Outcome]
    ) -> None:
        """Measure how late the events are, and log what became of them."""
        now = time.time()
        for item in decoded:
            if item and not isinstance(item, Malformed):
                published = int(item.published) / TICKS_PER_SECOND
                metrics.lag.observe(max(0.0, now - published))

        counts = {outcome.value: count for outcome, count in outcomes.items()}
        log.debug("applied", subscriptions=len(group), **counts)


def _end(group: _Group, error: Exception | None = None) -> None:
    """Let the callers go on."""
    for submission in group:
        applied = submission.applied
        if applied.done():
            continue  # its caller was cancelled
        if error:
            applied.set_exception(error)
        else:
            applied.set_result(None)
