"""Live delivery: positions, the catch-up cache, and held messages."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import count, repeat
from operator import itemgetter
from typing import Final

from worker.emulator.cache import Cache, Message, first_counted
from worker.emulator.faults import Fault, Faults
from worker.emulator.subscription import Groups, Listeners, Subscription, wildcards
from worker.emulator.timetokens import (
    TICKS_PER_MILLISECOND,
    TICKS_PER_SECOND,
    Timetokens,
)

REGION: Final = 12
PUBLISH_LAG_TICKS: Final = 2 * TICKS_PER_MILLISECOND
HANDSHAKE_AGE_TICKS: Final = 17 * TICKS_PER_SECOND
CACHE_TICKS: Final = 1000 * TICKS_PER_SECOND

Match = tuple[str, str | None]
"""A channel, and the group or wildcard that matches it, if any."""
Delivery = tuple[int, Message, bytes]
"""A position, the message there, and its bytes for the subscriber."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """The beginning of a subscriber's next poll."""

    timetoken: int
    region: int = REGION


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a poll: the next cursor, and messages as JSON bytes."""

    cursor: Cursor
    messages: tuple[bytes, ...] = ()

    def body(self) -> bytes:
        """Return the JSON."""
        timetoken = self.cursor.timetoken
        region = self.cursor.region
        messages = b",".join(self.messages)
        return b'{"t":{"t":"%d","r":%d},"m":[%s]}' % (timetoken, region, messages)


class Stream:
    """Delivers messages by position.

    An answer has the messages behind the cursor, whatever their publish
    times. A held message (late, or repeated) gets a new position when it
    is released, so it is neither skipped nor pushed out of the cache.
    """

    def __init__(self, time: Timetokens, faults: Faults) -> None:
        self.groups = Groups()
        self.listeners = Listeners()
        self.on_hold: Callable[[], None] = lambda: None
        """Called when a message is held. Call ``release`` in time, then."""
        self._time = time
        self._faults = faults
        self._cache = Cache()
        self.positions = self._cache.positions
        self._position = 0
        self._held: list[tuple[int, int, str, Message]] = []
        self._serial = count()
        self._rewound: set[int] = set()

    def next_position(self) -> int:
        """Reserve a position a little after the present and every cursor."""
        soon = self._time.now() + PUBLISH_LAG_TICKS
        self._position = max(self._position + 2, soon)
        return self._position

    def publish(self, channel: str, message: Message) -> None:
        """Deliver one message, with the faults of events."""
        if self._faults.strikes(Fault.LOST):
            return

        if self._faults.strikes(Fault.DUPLICATE):
            message = self._repeat(channel, message)

        if self._faults.strikes(Fault.LATE):
            seconds = self._faults.random.uniform(0.05, 0.5)
            self._hold(channel, message, seconds)
        else:
            self.deliver(channel, message)

    def _repeat(self, channel: str, message: Message) -> Message:
        """Repeat a message in the same answer, or in a later one."""
        random = self._faults.random
        if random.random() < 0.5:
            return replace(message, copies=2)

        copy = replace(message, extra=True)
        seconds = random.uniform(0.02, 0.2)
        self._hold(channel, copy, seconds)
        return message

    def deliver(self, channel: str, message: Message) -> None:
        """Put a message into the cache, and wake its subscribers."""
        self._cache.append(channel, message)
        names = self.groups.groups_of(channel)
        groups = (f":{group}" for group in names)
        topics = (channel, *wildcards(channel), *groups)
        self.listeners.call(topics)

    def _hold(self, channel: str, message: Message, seconds: float) -> None:
        ticks = int(seconds * TICKS_PER_SECOND)
        due = self._time.now() + ticks
        held = (due, next(self._serial), channel, message)
        heappush(self._held, held)
        self.on_hold()

    def release(self) -> None:
        """Deliver the held messages that are due."""
        while self._held and self._held[0][0] <= self._time.now():
            _, _, channel, message = heappop(self._held)
            position = self.next_position()
            message = replace(message, position=position)
            self.deliver(channel, message)

    def seconds_until_release(self) -> float | None:
        """Return when a held message is due; None if there is none."""
        if not self._held:
            return None
        due = self._held[0][0]
        ticks = due - self._time.now()
        return max(0.0, ticks / TICKS_PER_SECOND)

    def read(self, subscription: Subscription, cursor: Cursor) -> Answer:
        """Answer one poll as of now.

        An answer without messages has the same cursor.
        """
        self.release()
        matches = list(self._matches(subscription))
        if cursor.timetoken == 0:
            present = self._present(matches)
            return Answer(Cursor(present))

        deliveries = self._deliveries(matches, cursor.timetoken)
        if not deliveries:
            return Answer(cursor)

        messages = self._bodies(deliveries)
        newest = deliveries[-1][0]
        next_cursor = self._cursor_after(cursor.timetoken, newest)
        return Answer(next_cursor, messages)

    def _bodies(self, deliveries: list[Delivery]) -> tuple[bytes, ...]:
        messages: list[bytes] = []
        for _, message, body in deliveries:
            messages += [body] * message.copies
        if len(messages) > 1 and self._faults.strikes(Fault.REORDER):
            self._faults.random.shuffle(messages)
        return tuple(messages)

    def _present(self, matches: list[Match]) -> int:
        """Return a handshake's cursor: now, or the last message's position."""
        now = max(self._time.now(), self._position)
        channels = (channel for channel, _ in matches)
        positions = map(self._cache.newest, channels)
        newest = max(positions, default=0)
        is_recent = newest > now - HANDSHAKE_AGE_TICKS
        return newest if is_recent else now

    def _matches(self, subscription: Subscription) -> Iterator[Match]:
        for name in subscription.channels:
            if name.endswith(".*"):
                channels = self._cache.channels_like(name)
                yield from zip(channels, repeat(name), strict=False)
            else:
                yield name, None
        for group in subscription.groups:
            channels = self.groups.channels(group)
            yield from zip(channels, repeat(group), strict=False)

    def _deliveries(self, matches: list[Match], position: int) -> list[Delivery]:
        """Return the newest messages behind the position, as many as fit."""
        oldest = max(position, self._time.now() - CACHE_TICKS)
        deliveries = [
            (message.position, message, message.matched_by(match))
            for channel, match in matches
            for message in self._cache.after(channel, oldest)
        ]
        deliveries.sort(key=itemgetter(0))
        messages = map(itemgetter(1), deliveries)
        begin = first_counted(messages)
        return deliveries[begin:]

    def _cursor_after(self, sent: int, position: int) -> Cursor:
        if sent in self._rewound:
            # A cursor that always goes back would stop the subscriber.
            self._rewound.discard(sent)
            return Cursor(position)

        if not self._faults.strikes(Fault.REWIND):
            return Cursor(position)

        milliseconds = self._faults.random.randint(1, 64)
        ticks = milliseconds * TICKS_PER_MILLISECOND
        earlier = position - ticks
        self._rewound.add(earlier)
        return Cursor(earlier, REGION + 1)
