"""One follower of all journals, for all clients of this process.

It has one subscription to the hints of Redis, however many clients there are.
It begins with the first client, and ends some time after the last one has left.
"""

import asyncio
import math
import re
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from itertools import islice
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
IDLE_SECONDS: Final = 60.0
"""How long it follows without a client."""

log = structlog.get_logger(__name__)


class Hub:
    """Follows every channel, and tells each client what concerns it."""

    def __init__(self, reads: Reads, sender: AsyncSender, failures: ReadFailures) -> None:
        self._reads = reads
        self._sender = sender
        self._failures = failures
        self._task: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        """Those that have not ended yet."""
        self._idle: asyncio.TimerHandle | None = None
        self._has_begun = asyncio.Event()
        self._of_channel: dict[str, set[Subscriber]] = {}
        self._of_all: set[Send] = set()
        self._ends: set[Callable[[], None]] = set()
        self._events = KeptEvents()

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None]:
        """Follow while this is open, for clients that use it."""
        try:
            yield
        finally:
            self._stop()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    @contextmanager
    def used(self, end: Callable[[], None]) -> Iterator[None]:
        """Follow for a client, and some time longer; ``end`` ends it if the hub fails."""
        self._ends.add(end)
        self._start()
        try:
            yield
        finally:
            self._ends.discard(end)
            if not self._ends:
                loop = asyncio.get_running_loop()
                self._idle = loop.call_later(IDLE_SECONDS, self._stop)

    async def ready(self) -> None:
        """Wait until it follows: whatever changes from now on comes."""
        await self._has_begun.wait()

    def _start(self) -> None:
        self._cancel_idle()
        if self._task is None:
            self._task = asyncio.create_task(self._run())
            self._tasks.add(self._task)
            self._task.add_done_callback(self._tasks.discard)

    def _stop(self) -> None:
        """Follow no longer. Ids of the events that were kept are unknown from now on."""
        self._cancel_idle()
        if self._task:
            self._task.cancel()
            self._task = None
        self._fail()

    def _cancel_idle(self) -> None:
        if self._idle:
            self._idle.cancel()

    @contextmanager
    def joined(self, subscriber: Subscriber) -> Iterator[None]:
        """Tell a subscriber what concerns its channels."""
        for channel in subscriber.channels:
            self._of_channel.setdefault(channel, set()).add(subscriber)
        try:
            yield
        finally:
            for channel in subscriber.channels:
                self._leave(channel, subscriber)

    def _leave(self, channel: str, subscriber: Subscriber) -> None:
        subscribers = self._of_channel[channel]
        subscribers.remove(subscriber)
        if not subscribers:
            del self._of_channel[channel]

    @contextmanager
    def joined_all(self, send: Send, since: str | None) -> Iterator[Sequence[bytes]]:
        """Send everything from now on; yield what came since an id, or a reset."""
        self._of_all.add(send)
        try:
            yield self._events.since(since)
        finally:
            self._of_all.discard(send)

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
        for end in tuple(self._ends):
            end()


class KeptEvents:
    """The newest events of all channels, by their numbers."""

    def __init__(self) -> None:
        self._run = secrets.token_hex(4)
        self._newest = 0
        self._kept: deque[bytes] = deque(maxlen=KEPT)

    @property
    def id(self) -> str:
        """The id of the newest event."""
        return f"{self._run}-{self._newest}"

    def add(self, item: Item) -> bytes:
        """Keep an event; return it as it goes over the wire."""
        self._newest += 1
        written = write(item, self.id)
        self._kept.append(written)
        return written

    def since(self, id: str | None) -> list[bytes]:
        """Return the events after an id; a reset of every channel if they are not known."""
        if id is None:
            return [event_id(self.id)]
        known = re.fullmatch(f"{self._run}-([0-9]{{1,20}})", id)
        missed = self._newest - int(known[1]) if known else -1
        if not 0 <= missed <= len(self._kept):
            return [write(None, self.id)]
        # The client's own id comes first: until the events have come, it is no further.
        return [event_id(id), *islice(self._kept, len(self._kept) - missed, None)]
