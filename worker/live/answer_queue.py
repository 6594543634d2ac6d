"""PubNub's answers on their way from the poll to Redis, in order."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from worker.domain.action import Observed
from worker.domain.position import Cursor
from worker.source.refusals import Readmitted, Refused
from worker.source.wire import Malformed

QUEUED_ANSWERS: Final = 8
"""Answers that wait for one round trip, while others are applied."""


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


class CheckRedis:
    """Redis may have gone back: the side that applies checks that."""


QueuedItem = DecodedAnswer | Refused | Readmitted | CheckRedis


class AnswerQueue:
    """A short queue. A failure loses no item: ``pending`` holds it."""

    def __init__(self) -> None:
        self.pending: list[QueuedItem] = []
        """Fetched items that are not handled yet, oldest first."""
        self.is_empty = asyncio.Event()
        """Whether everything is handled."""
        self._arrived: asyncio.Queue[QueuedItem | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(QUEUED_ANSWERS)

    def __len__(self) -> int:
        return self._arrived.qsize() + len(self.pending)

    @property
    def is_full(self) -> bool:
        """Whether the poll waits for room."""
        return self._room.locked()

    async def put(self, item: DecodedAnswer | Refused | Readmitted) -> None:
        """Add an item; return when there is room for another one."""
        self.is_empty.clear()
        self._arrived.put_nowait(item)
        await self._room.acquire()

    def check_redis(self) -> None:
        """Let the side that applies check whether Redis went back."""
        self._arrived.put_nowait(CheckRedis())

    def close(self) -> None:
        """Say that nothing follows."""
        self._arrived.put_nowait(None)

    async def fetch(self) -> bool:
        """Wait for an item, and move what arrived to ``pending``.

        Return False if nothing follows.
        """
        item = await self._arrived.get()
        while item is not None:
            self.pending.append(item)
            if not isinstance(item, CheckRedis):
                self._room.release()
            if self._arrived.empty():
                return True
            item = self._arrived.get_nowait()
        return False

    def fetch_nowait(self) -> None:
        """Move what arrived to ``pending``, after the end."""
        while not self._arrived.empty():
            item = self._arrived.get_nowait()
            if item is not None:
                self.pending.append(item)

    def first_answers(self) -> list[DecodedAnswer]:
        """Return the pending answers before the first other item."""
        answers: list[DecodedAnswer] = []
        for item in self.pending:
            if not isinstance(item, DecodedAnswer):
                break
            answers.append(item)
        return answers

    def drop_handled(self, count: int) -> None:
        """Forget the oldest pending items: they are handled."""
        del self.pending[:count]
        if not self:
            self.is_empty.set()
