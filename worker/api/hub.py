"""One follower of all journals, for all clients of this process.

It has one subscription to the hints of Redis, however many clients there are.
It begins with the first client, and ends some time after the last one has left.
It reads journals of channels that a client wants: of all while one wants all, and some time longer.
"""

import asyncio
import math
import re
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from itertools import islice
from typing import Any, Final

import structlog

from reaction_tally.changes import Listen, Pause, Steps, advance, begin
from reaction_tally.errors import TallyReadError
from reaction_tally.following import Item
from reaction_tally.operations import GroupedOperation, Operations
from reaction_tally.senders import AsyncSender
from worker.api.failures import ReadFailures
from worker.api.subscriber import Send, Subscriber, event_id, write
from worker.api.usage import Usage

KEPT: Final = 20_000
"""Events that are kept for clients of all channels that come again."""
PAUSE_SECONDS: Final = 1.0
"""Between two tries to begin."""

GATHER_SECONDS: Final = 0.03
"""How long hints gather after a round trip. Nobody sees it, and a busy worker has fewer of them."""

log = structlog.get_logger(__name__)


class Hub:
    """Follows channels, and tells each client what concerns it."""

    def __init__(
        self,
        operations: Operations,
        sender: AsyncSender,
        failures: ReadFailures,
    ) -> None:
        self._operations = operations
        self._sender = sender
        self._failures = failures
        self._task: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        """Those that have not ended yet."""
        self._has_begun = asyncio.Event()
        self._of_channel: dict[str, set[Subscriber]] = {}
        self._of_all: set[Send] = set()
        self._ends: set[Callable[[], None]] = set()
        self._events = KeptEvents()
        self._usage = Usage(self._stop)
        self._usage_of_all = Usage(self._forget)

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None]:
        """Follow while this is open, for clients that use it."""
        try:
            yield
        finally:
            self._usage.end()
            self._usage_of_all.end()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    @contextmanager
    def used(self, end: Callable[[], None]) -> Iterator[None]:
        """Follow for a client, and some time longer; ``end`` ends it if the hub fails."""
        self._ends.add(end)
        self._start()
        try:
            with self._usage.shared():
                yield
        finally:
            self._ends.discard(end)

    async def ready(self) -> None:
        """Wait until it follows: whatever changes from now on comes."""
        await self._has_begun.wait()

    def _start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run())
            self._tasks.add(self._task)
            self._task.add_done_callback(self._tasks.discard)

    def _stop(self) -> None:
        """Follow no longer."""
        if self._task:
            self._task.cancel()
            self._task = None
        self._fail()

    def _forget(self) -> None:
        """Let the ids of the events that were kept be unknown from now on."""
        self._events = KeptEvents()

    def _wants(self, channel: str) -> bool:
        return self._usage_of_all.is_on or channel in self._of_channel

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
            with self._usage_of_all.shared():
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
        steps = begin(self._operations, None, None, math.inf, self._wants)
        return self._sender.follow(self._noted(steps), self._operations.keys.hints)

    def _noted(self, beginning: GroupedOperation[Steps]) -> GroupedOperation[Steps]:
        steps = yield from beginning
        self._has_begun.set()
        return gathering(steps)

    def _publish(self, item: Item) -> None:
        # A set may change while this runs: a client is cut off that does not read.
        if self._usage_of_all.is_on:
            written = self._events.add(item)
            for send in tuple(self._of_all):
                send(written)
        for subscriber in tuple(self._of_channel.get(item.channel, ())):
            subscriber.take(item)

    def _fail(self) -> None:
        """End all clients. They come again, and say how far they are."""
        self._has_begun.clear()
        self._forget()
        for end in tuple(self._ends):
            end()


def gathering(steps: Steps) -> Steps:
    """Let hints gather for a moment before they are taken: one round trip reads many journals.

    A hint that comes alone is followed at once.
    """
    answer: Any = None
    while True:
        step = advance(steps, answer)
        if isinstance(step, Listen):
            yield Pause(GATHER_SECONDS)
        try:
            answer = yield step
        except TallyReadError as error:
            answer = error


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
