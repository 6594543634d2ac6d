"""Live delivery: positions, the catch-up cache, and held messages."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import count
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
        cursor = self.cursor
        messages = b",".join(self.messages)
        return b'{"t":{"t":"%d","r":%d},"m":[%s]}' % (cursor.timetoken, cursor.region, messages)


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
        self._position = 0
        self._held: list[tuple[int, int, str, Message]] = []
        self._serial = count()
        self._rewound: set[int] = set()

    def next_position(self) -> int:
        """Reserve a position a little after the present and every cursor."""
        self._position = max(self._position + 2, self._time.now() + PUBLISH_LAG_TICKS)
        return self._position

    def publish(self, channel: str, message: Message) -> None:
        """Deliver one message, with the faults of events."""
        random = self._faults.random
        if self._faults.strikes(Fault.LOST):
            return
        if self._faults.strikes(Fault.DUPLICATE):
            if random.random() < 0.5:
                message = replace(message, copies=2)
            else:
                copy = replace(message, extra=True)
                self._hold(channel, copy, random.uniform(0.02, 0.2))
        if self._faults.strikes(Fault.LATE):
            self._hold(channel, message, random.uniform(0.05, 0.5))
        else:
            self.deliver(channel, message)

    def deliver(self, channel: str, message: Message) -> None:
        """Put a message into the cache, and wake its subscribers."""
        self._cache.append(channel, message)
        groups = (f":{group}" for group in self.groups.groups_of(channel))
        self.listeners.call((channel, *wildcards(channel), *groups))

    def _hold(self, channel: str, message: Message, seconds: float) -> None:
        due = self._time.now() + int(seconds * TICKS_PER_SECOND)
        heappush(self._held, (due, next(self._serial), channel, message))
        self.on_hold()

    def release(self) -> None:
        """Deliver the held messages that are due."""
        while self._held and self._held[0][0] <= self._time.now():
            _, _, channel, message = heappop(self._held)
            self.deliver(channel, replace(message, position=self.next_position()))

    def seconds_until_release(self) -> float | None:
        """Return when a held message is due; None if there is none."""
        if not self._held:
            return None
        due = self._held[0][0]
        return max(0.0, (due - self._time.now()) / TICKS_PER_SECOND)

    def read(self, subscription: Subscription, cursor: Cursor) -> Answer:
        """Answer one poll as of now.

        An answer without messages has the same cursor.
        """
        self.release()
        matches = list(self._matches(subscription))
        if cursor.timetoken == 0:
            return Answer(Cursor(self._present(matches)))
        deliveries = self._deliveries(matches, cursor.timetoken)
        if not deliveries:
            return Answer(cursor)
        messages: list[bytes] = []
        for _, message, body in deliveries:
            messages += [body] * message.copies
        if len(messages) > 1 and self._faults.strikes(Fault.REORDER):
            self._faults.random.shuffle(messages)
        newest = deliveries[-1][0]
        return Answer(self._cursor_after(cursor.timetoken, newest), tuple(messages))

    def _present(self, matches: list[Match]) -> int:
        """Return a handshake's cursor: now, or the last message's position."""
        now = max(self._time.now(), self._position)
        newest = max((self._cache.newest(channel) for channel, _ in matches), default=0)
        return newest if newest > now - HANDSHAKE_AGE_TICKS else now

    def _matches(self, subscription: Subscription) -> Iterator[Match]:
        for name in subscription.channels:
            if name.endswith(".*"):
                for channel in self._cache.channels_like(name):
                    yield channel, name
            else:
                yield name, None
        for group in subscription.groups:
            for channel in self.groups.channels(group):
                yield channel, group

    def _deliveries(self, matches: list[Match], position: int) -> list[Delivery]:
        """Return the newest messages behind the position, as many as fit."""
        oldest = max(position, self._time.now() - CACHE_TICKS)
        deliveries = [
            (message.position, message, message.matched_by(match))
            for channel, match in matches
            for message in self._cache.after(channel, oldest)
        ]
        deliveries.sort(key=itemgetter(0))
        return deliveries[first_counted(map(itemgetter(1), deliveries)) :]

    def _cursor_after(self, sent: int, position: int) -> Cursor:
        if sent in self._rewound:
            # A cursor that always goes back would stop the subscriber.
            self._rewound.discard(sent)
            return Cursor(position)
        if not self._faults.strikes(Fault.REWIND):
            return Cursor(position)
        milliseconds = self._faults.random.randint(1, 64)
        earlier = position - milliseconds * TICKS_PER_MILLISECOND
        self._rewound.add(earlier)
        return Cursor(earlier, REGION + 1)
