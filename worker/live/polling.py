"""The side of a subscription that polls PubNub."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from enum import StrEnum
from typing import Final

from worker.domain.position import Cursor
from worker.live.answer_queue import AnswerQueue, DecodedAnswer
from worker.live.full_answers import BUSY_ANSWER
from worker.source import wire
from worker.source.live import Poller, Received
from worker.source.wire import CountedTypes

APPLY_WAIT_SECONDS: Final = 0.5
"""The longest wait for a small answer, if Redis hangs."""
LATE_SECONDS: Final = 90.0
"""How late a poll may be until it counts as stuck."""


class State(StrEnum):
    """What a subscription does."""

    STARTING = "starting"
    FOLLOWING = "following"
    WAITING = "waiting"
    """It waits for Redis."""
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    """PubNub answers 403 for some of its names."""
    STOPPING = "stopping"


class Polling:
    """Polls until it is stopped; knows how the polls go."""

    def __init__(
        self,
        poller: Poller,
        counted_types: CountedTypes,
        clock: Callable[[], float],
    ) -> None:
        self.queue = AnswerQueue()
        """The answers of the newest start."""
        self.is_stopping = False
        self.poller = poller
        self._counted_types = counted_types
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def started(self, cursor: Cursor) -> AsyncIterator[AnswerQueue]:
        """Poll from the cursor on until the block ends; yield the queue.

        Raises:
            Exception: the error that ended the polls, after the block.
        """
        queue = self.queue = AnswerQueue()
        task = self._task = asyncio.create_task(self._poll(cursor, queue))
        # However polling ends, even cancelled before its first step,
        # the other side notices.
        task.add_done_callback(lambda _: queue.close())
        try:
            yield queue
        finally:
            task.cancel()
            await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    def stop(self) -> None:
        """End the queue; what is in it stays there."""
        self.is_stopping = True
        if self._task:
            self._task.cancel()

    @property
    def state(self) -> State:
        """What the subscription does now."""
        if self.is_stopping:
            return State.STOPPING
        if self._task and (self._task.done() or self.queue.is_full):
            return State.WAITING
        return State(self.poller.state)

    @property
    def is_stuck(self) -> bool:
        """Whether one poll is under way for longer than any poll takes."""
        if self._task is None:
            return False
        if self.state in {State.WAITING, State.STOPPING}:
            return False
        return self._clock() - self.poller.due_at > LATE_SECONDS

    async def _poll(self, cursor: Cursor, queue: AnswerQueue) -> None:
        items = self.poller.items(cursor)
        async with aclosing(items):  # type: ignore[type-var] # it is a generator
            async for item in items:
                if not isinstance(item, Received):
                    await queue.put(item)
                    continue
                # While this answer is decoded, Redis works on the one before.
                answer = decode_answer(item, self._counted_types)
                await queue.put(answer)
                if answer.messages < BUSY_ANSWER:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(APPLY_WAIT_SECONDS):
                            await queue.is_empty.wait()


def decode_answer(received: Received, counted_types: CountedTypes) -> DecodedAnswer:
    """Return an answer with its messages decoded.

    Other messages than actions of counted types are left out.
    """
    answer = received.answer
    decoded = wire.decode_answer(answer, counted_types)
    return DecodedAnswer(answer.cursor, received.at, answer.count, decoded)
