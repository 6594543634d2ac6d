"""What many subscriptions bring, applied together."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from worker.apply import Applier
from worker.domain.action import Origin
from worker.source.wire import Decoded

SAVES_AT_ONCE: Final = 4
"""Cursors on their way to Redis at once, each over a connection of its own."""
EVENTS_AT_ONCE: Final = 2_000
"""Events from which on others wait for the next time."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Brought:
    decoded: Sequence[Decoded]
    received: float
    applied: asyncio.Future[None]


class Together:
    """Applies what subscriptions bring: who comes while Redis has its hands full is applied next, with all who did.

    Two hundred subscriptions with an event each are then one round trip, and not two hundred over as many connections.
    """

    def __init__(self) -> None:
        self.saving = asyncio.Semaphore(SAVES_AT_ONCE)
        self._waiting: deque[_Brought] = deque()
        self._applying: asyncio.Task[None] | None = None

    async def apply(self, applier: Applier, decoded: Sequence[Decoded], received: float) -> None:
        """Apply them, read at ``received``; when it returns, they are applied.

        Raises:
            StaleError: these, or what was applied with them, waited for too long.
        """
        if not decoded:
            return
        mine = _Brought(decoded, received, asyncio.get_running_loop().create_future())
        self._waiting.append(mine)
        if not self._applying:
            self._applying = asyncio.create_task(self._apply(applier))
        await mine.applied

    async def _apply(self, applier: Applier) -> None:
        try:
            while self._waiting:
                group = self._next()
                decoded = [item for brought in group for item in brought.decoded]
                oldest = min(brought.received for brought in group)
                try:
                    outcomes = await applier.apply(decoded, Origin.LIVE, oldest)
                except Exception as error:  # it is theirs who brought the events
                    _tell(group, error)
                else:
                    _tell(group, None)
                    log.debug(
                        "applied", subscriptions=len(group), **{what.value: many for what, many in outcomes.items()}
                    )
        finally:
            self._applying = None

    def _next(self) -> list[_Brought]:
        group, size = [self._waiting.popleft()], 0
        while self._waiting and (size := size + len(group[-1].decoded)) < EVENTS_AT_ONCE:
            group.append(self._waiting.popleft())
        return group


def _tell(group: Sequence[_Brought], error: Exception | None) -> None:
    for brought in group:
        if brought.applied.done():  # whoever brought it has been cancelled
            continue
        if error:
            brought.applied.set_exception(error)
        else:
            brought.applied.set_result(None)
