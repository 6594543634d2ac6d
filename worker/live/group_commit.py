"""What many subscriptions bring, applied together."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from worker.applying.apply import Applier, RolledBackError, StaleError
from worker.domain.action import Origin
from worker.domain.position import TICKS_PER_SECOND
from worker.source.wire import Decoded, Malformed
from worker.telemetry import metrics

SAVE_CONCURRENCY: Final = 4
"""Cursors on their way to Redis at once, each over a connection of its own."""
EVENT_BATCH: Final = 2_000
"""Events from which on others wait for the next time."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Submission:
    decoded: Sequence[Decoded]
    received: float
    applied: asyncio.Future[None]


class GroupCommit:
    """Applies what subscriptions bring: who comes while Redis has its hands full is applied next, with all who did.

    Two hundred subscriptions with an event each are then one round trip, and not two hundred over as many connections.
    """

    def __init__(self, unix_time: Callable[[], float] = time.time) -> None:
        self._unix_time = unix_time
        self.saving = asyncio.Semaphore(SAVE_CONCURRENCY)
        self._waiting: deque[_Submission] = deque()
        self._group: Sequence[_Submission] = ()
        self._applying: asyncio.Task[None] | None = None

    async def apply(self, applier: Applier, decoded: Sequence[Decoded], received: float) -> None:
        """Apply them, read at ``received``; when it returns, they are applied.

        Raises:
            StaleError: these waited for too long.
            ForgottenError: Redis went back while they were applied.
        """
        if not decoded:
            return
        mine = _Submission(decoded, received, asyncio.get_running_loop().create_future())
        self._waiting.append(mine)
        if not self._applying:
            self._applying = asyncio.create_task(self._apply(applier))
        try:
            await mine.applied
        except asyncio.CancelledError:
            await self._give_up()
            raise

    async def _give_up(self) -> None:
        """Stop applying where nobody waits for it any more: it must not outlive its connection to Redis."""
        if self._applying and all(
            submission.applied.done() for submission in (*self._group, *self._waiting)
        ):
            self._applying.cancel()
            await asyncio.wait([self._applying])

    async def _apply(self, applier: Applier) -> None:
        try:
            while self._waiting:
                self._group = _fresh(self._next(), applier)
                if self._group:
                    await self._apply_group(self._group, applier)
        finally:
            self._applying, self._group = None, ()

    async def _apply_group(self, group: Sequence[_Submission], applier: Applier) -> None:
        try:
            decoded = [item for submission in group for item in submission.decoded]
            outcomes = await applier.apply(
                decoded, Origin.LIVE, min(submission.received for submission in group)
            )
        except StaleError as error:
            if isinstance(error, RolledBackError) or len(left := _fresh(group, applier)) == len(
                group
            ):
                _tell(group, error)
            else:  # the oldest has waited for too long; the others go on, for to read them again may open gaps
                self._waiting.extendleft(reversed(left))
        except Exception as error:  # it is theirs who brought the events
            _tell(group, error)
        else:
            _tell(group, None)
            self._note_lag(decoded)
            log.debug(
                "applied",
                subscriptions=len(group),
                **{what.value: many for what, many in outcomes.items()},
            )

    def _note_lag(self, decoded: Sequence[Decoded]) -> None:
        now = self._unix_time()
        for item in decoded:
            if item and not isinstance(item, Malformed):
                metrics.lag.observe(max(0.0, now - int(item.published) / TICKS_PER_SECOND))

    def _next(self) -> list[_Submission]:
        group, size = [self._waiting.popleft()], 0
        while self._waiting and (size := size + len(group[-1].decoded)) < EVENT_BATCH:
            group.append(self._waiting.popleft())
        return group


def _fresh(group: Sequence[_Submission], applier: Applier) -> list[_Submission]:
    """Return who has not waited for too long; tell the others that they have."""
    left = []
    for submission in group:
        try:
            applier.expect_fresh(submission.received, "an answer")
        except StaleError as error:
            _tell([submission], error)
        else:
            left.append(submission)
    return left


def _tell(group: Sequence[_Submission], error: Exception | None) -> None:
    for submission in group:
        if submission.applied.done():  # whoever brought it has been cancelled
            continue
        if error:
            submission.applied.set_exception(error)
        else:
            submission.applied.set_result(None)
