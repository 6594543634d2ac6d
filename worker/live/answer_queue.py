"""PubNub's answers on their way from the poll to Redis, in order."""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from worker.domain.action import Observed
from worker.domain.position import Cursor
from worker.source.refusals import Readmitted, Refused
from worker.source.wire import Malformed

QUEUED_ANSWERS: Final = 8
"""Answers that wait while others are applied.

Answers that waited are applied in one round trip.
"""


@dataclass(frozen=True, slots=True)
class DecodedAnswer:
    """An answer of PubNub.

    ``messages`` counts its messages of all kinds.
    ``received_at`` is when it came, in seconds of the clock.
    """

    cursor: Cursor
    received_at: float
    messages: int
    decoded: Sequence[Observed | Malformed]


class WakeUp:
    """Wakes the side that applies; it checks whether Redis went back."""


Item = DecodedAnswer | Refused | Readmitted | WakeUp


class AnswerQueue:
    """A short queue.

    An item stays in ``pending`` until it is handled, so that a failure loses none.
    """

    def __init__(self) -> None:
        self.pending: deque[Item] = deque()
        """Items that were fetched and are not handled yet, oldest first."""
        self._arrived: asyncio.Queue[Item | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(QUEUED_ANSWERS)
        self._is_empty = asyncio.Event()

    def __len__(self) -> int:
        return self._arrived.qsize() + len(self.pending)

    @property
    def is_full(self) -> bool:
        """Whether the poll waits for room."""
        return self._room.locked()

    async def put(self, item: Item) -> None:
        """Add an item; return when there is room for another one."""
        self._is_empty.clear()
        self._arrived.put_nowait(item)
        await self._room.acquire()

    def wake(self) -> None:
        """Wake the side that applies."""
        self._arrived.put_nowait(WakeUp())

    def close(self) -> None:
        """Say that nothing follows."""
        self._arrived.put_nowait(None)

    async def wait_until_empty(self, seconds: float) -> None:
        """Return when everything is handled, or after so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._is_empty.wait()

    async def fetch(self) -> bool:
        """Wait for an item, and move what arrived to ``pending``.

        Return False if nothing follows.
        """
        item = await self._arrived.get()
        while item is not None:
            self._take(item)
            if self._arrived.empty():
                return True
            item = self._arrived.get_nowait()
        return False

    def fetch_nowait(self) -> None:
        """Move what arrived to ``pending``."""
        while not self._arrived.empty():
            item = self._arrived.get_nowait()
            if item is not None:
                self._take(item)

    def first_answers(self) -> list[DecodedAnswer]:
        """Return the pending answers up to the first item of another kind."""
        answers: list[DecodedAnswer] = []
        for item in self.pending:
            if not isinstance(item, DecodedAnswer):
                break
            answers.append(item)
        return answers

    def drop_handled(self, count: int) -> None:
        """Forget the oldest pending items: they are handled."""
        for _ in range(count):
            self.pending.popleft()
        if not self:
            self._is_empty.set()

    def _take(self, item: Item) -> None:
        self.pending.append(item)
        if not isinstance(item, WakeUp):
            self._room.release()
