"""One follower of all journals, for all clients of this process.

It has one subscription to the hints of Redis, however many clients there are.
It begins with the first client, and ends with the worker.
"""

import asyncio
import math
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from typing import Final

import structlog

from reaction_tally.changes import Steps
from reaction_tally.errors import TallyReadError
from reaction_tally.following import Item
from reaction_tally.operations import Operation
from reaction_tally.reads import Reads
from reaction_tally.senders import AsyncSender
from worker.api.failures import ReadFailures
from worker.api.subscriber import Send, Subscriber, event_id, write

KEPT: Final = 20_000
"""Events that are kept for clients of all channels that come again."""
PAUSE_SECONDS: Final = 1.0
"""Between two tries to begin."""

log = structlog.get_logger(__name__)


class Hub:
    """Follows every channel, and tells each client what concerns it."""

    def __init__(self, reads: Reads, sender: AsyncSender, failures: ReadFailures) -> None:
        self._reads = reads
        self._sender = sender
        self._failures = failures
        self._task: asyncio.Task[None] | None = None
        self._has_begun = asyncio.Event()
        self._of_channel: dict[str, set[Subscriber]] = {}
        self._of_all: set[Send] = set()
        self._ends: dict[object, Callable[[], None]] = {}
        self._events = KeptEvents()

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None]:
        """Follow while this is open, once somebody has joined."""
        try:
            yield
        finally:
            if self._task:
                self._task.cancel()
                with suppress(asyncio.CancelledError):
                    await self._task

    async def ready(self) -> None:
        """Wait until it follows: whatever changes from now on comes."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        await self._has_begun.wait()

    @contextmanager
    def joined(self, subscriber: Subscriber, end: Callable[[], None]) -> Iterator[None]:
        """Tell a subscriber what concerns its channels; ``end`` ends it if the hub fails."""
        for channel in subscriber.channels:
            self._of_channel.setdefault(channel, set()).add(subscriber)
        self._ends[subscriber] = end
        try:
            yield
        finally:
            del self._ends[subscriber]
            for channel in subscriber.channels:
                self._leave(channel, subscriber)

    def _leave(self, channel: str, subscriber: Subscriber) -> None:
        subscribers = self._of_channel[channel]
        subscribers.remove(subscriber)
        if not subscribers:
            del self._of_channel[channel]

    @contextmanager
    def joined_all(
        self,
        send: Send,
        end: Callable[[], None],
        since: str | None,
    ) -> Iterator[Sequence[bytes]]:
        """Send everything from now on; yield what came since an id, or a reset."""
        self._of_all.add(send)
        self._ends[send] = end
        try:
            yield self._events.since(since)
        finally:
            self._of_all.discard(send)
            del self._ends[send]

    async def _run(self) -> None:
        while True:
            try:
                async with aclosing(self._follow()) as items:
                    async for item in items:
                        self._publish(item)
            except TallyReadError as error:
                self._failures.note(error)
            except Exception:
                log.exception("api_hub_fails")
            self._fail()
            await asyncio.sleep(PAUSE_SECONDS)

    def _follow(self) -> AsyncGenerator[Item]:
        # Redis may be away for as long as it likes: then the clients wait.
        begin = self._reads.changes(None, None, math.inf)
        return self._sender.follow(self._noted(begin), self._reads.keys.hints)

    def _noted(self, begin: Operation[Steps]) -> Operation[Steps]:
        steps = yield from begin
        self._has_begun.set()
        return steps

    def _publish(self, item: Item) -> None:
        # A set may change while this runs: a client is cut off that does not read.
        written = self._events.add(item)
        for send in tuple(self._of_all):
            send(written)
        for subscriber in tuple(self._of_channel.get(item.channel, ())):
            subscriber.take(item)

    def _fail(self) -> None:
        """End all clients. They come again, and say how far they are."""
        self._has_begun.clear()
        self._events = KeptEvents()
        for end in tuple(self._ends.values()):
            end()


class KeptEvents:
    """The newest events of all channels, by their numbers."""

    def __init__(self) -> None:
        self._run = secrets.token_hex(4)
        self._next = 1
        self._kept: deque[bytes] = deque(maxlen=KEPT)

    @property
    def id(self) -> str:
        """The id of the newest event."""
        return f"{self._run}-{self._next - 1}"

    def add(self, item: Item) -> bytes:
        """Keep an event; return it as it goes over the wire."""
        self._next += 1
        written = write(item, self.id)
        self._kept.append(written)
        return written

    def since(self, id: str | None) -> list[bytes]:
        """Return the events after an id; a reset of every channel if they are not known."""
        here = event_id(self.id)
        if id is None:
            return [here]
        missed = self._missed(id)
        if missed is None:
            return [write(None, self.id)]
        kept = list(self._kept)
        return [here, *kept[len(kept) - missed :]] if missed else [here]

    def _missed(self, id: str) -> int | None:
        """Return how many events follow an id; None if they are not all known."""
        run, _, number = id.partition("-")
        if run != self._run or not (number.isascii() and number.isdigit()) or len(number) > 20:
            return None
        missed = self._next - 1 - int(number)
        return missed if 0 <= missed <= len(self._kept) else None
