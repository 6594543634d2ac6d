"""Live delivery: positions, the catch-up cache, what is held back, and who is waiting for which channel."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import count
from operator import itemgetter
from typing import Final

from worker.emulator.cache import Cache, Message
from worker.emulator.faults import Fault, Faults
from worker.emulator.subscription import Groups, Subscription, wildcards
from worker.emulator.timetokens import TICKS_PER_MILLISECOND, TICKS_PER_SECOND, Timetokens

REGION: Final = 12
PUBLISH_LAG_TICKS: Final = 2 * TICKS_PER_MILLISECOND
HANDSHAKE_AGE_TICKS: Final = 17 * TICKS_PER_SECOND

Listener = Callable[[], None]
"""Called when a poll may have something to answer, or to wait for differently. It must not raise."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a subscriber's next poll begins: timetoken and region."""

    timetoken: int
    region: int = REGION


@dataclass(frozen=True, slots=True)
class Answer:
    """What a subscribe request is answered: the next cursor and the messages, each as JSON bytes."""

    cursor: Cursor
    messages: tuple[bytes, ...] = ()

    def body(self) -> bytes:
        """Return the JSON answer."""
        return b'{"t":{"t":"%d","r":%d},"m":[%s]}' % (
            self.cursor.timetoken,
            self.cursor.region,
            b",".join(self.messages),
        )


class Stream:
    """Delivers messages by position: an answer is what lies behind the cursor, whatever the publish times inside say.

    A message held back (late, or repeated later) takes its position when it is released, so that nothing held back is
    skipped or pushed out of the cache by those that overtook it. Reading releases what is due; whoever waits instead of
    reading sets `on_hold`, which is called when something new is held back, and calls `release` in time.
    """

    def __init__(self, time: Timetokens, faults: Faults, *, messages: int, seconds: float) -> None:
        self.groups = Groups()
        self._time = time
        self._faults = faults
        self._limit = messages
        self._life = int(seconds * TICKS_PER_SECOND)
        self._cache = Cache(messages)
        self._position = 0
        self._held: list[tuple[int, int, str, Message]] = []
        self._serial = count()
        self._rewound: set[int] = set()
        self.on_hold: Listener | None = None
        # Dicts in place of sets: whoever listens is called in the order of listening, so a seed gives the same history.
        self._listeners: dict[str, dict[Listener, None]] = {}

    def next_position(self) -> int:
        """Reserve the next place: a little after the present, and behind every cursor already answered."""
        self._position = max(self._position + 2, self._time.now() + PUBLISH_LAG_TICKS)
        return self._position

    def publish(self, channel: str, message: Message) -> None:
        """Deliver one message, unless a fault loses it, repeats it or holds it back."""
        if self._faults.strikes(Fault.LOST):
            return
        if self._faults.strikes(Fault.DUPLICATE):
            if self._faults.random.random() < 0.5:
                message = replace(message, copies=2)
            else:
                self._hold(
                    channel, replace(message, extra=True), self._faults.random.uniform(0.02, 0.2)
                )
        if self._faults.strikes(Fault.LATE):
            self._hold(channel, message, self._faults.random.uniform(0.05, 0.5))
        else:
            self.deliver(channel, message)

    def deliver(self, channel: str, message: Message) -> None:
        """Put a message where subscribers find it, and wake them."""
        self._cache.append(channel, message)
        self._wake(channel)

    def _hold(self, channel: str, message: Message, seconds: float) -> None:
        due = self._time.now() + int(seconds * TICKS_PER_SECOND)
        heappush(self._held, (due, next(self._serial), channel, message))
        if self.on_hold is not None:
            self.on_hold()

    def release(self) -> None:
        """Deliver what was held back long enough."""
        while self._held and self._held[0][0] <= self._time.now():
            _, _, channel, message = heappop(self._held)
            self.deliver(channel, replace(message, position=self.next_position()))

    def seconds_until_release(self) -> float | None:
        """Return when `release` has something to do, or None while nothing is held back."""
        if not self._held:
            return None
        return max(0.0, (self._held[0][0] - self._time.now()) / TICKS_PER_SECOND)

    def read(self, subscription: Subscription, cursor: Cursor) -> Answer:
        """Answer one poll as of now. An empty answer carries the cursor it was asked with."""
        self.release()
        if cursor.timetoken == 0:
            return Answer(Cursor(self._present(subscription)))
        found = self._newest(self._found(subscription, cursor.timetoken))
        if not found:
            return Answer(cursor)
        messages = [body for _, message, body in found for _ in range(message.copies)]
        if len(messages) > 1 and self._faults.strikes(Fault.REORDER):
            self._faults.random.shuffle(messages)
        return Answer(self._cursor_after(cursor.timetoken, found[-1][0]), tuple(messages))

    def _present(self, subscription: Subscription) -> int:
        now = max(self._time.now(), self._position)
        newest = max(
            (self._cache.newest(channel) for channel, _ in self._matches(subscription)), default=0
        )
        return newest if newest > now - HANDSHAKE_AGE_TICKS else now

    def _matches(self, subscription: Subscription) -> Iterator[tuple[str, str | None]]:
        for name in subscription.channels:
            if name.endswith(".*"):
                yield from ((channel, name) for channel in self._cache.channels_like(name))
            else:
                yield name, None
        for group in subscription.groups:
            yield from ((channel, group) for channel in self.groups.channels(group))

    def _found(self, subscription: Subscription, position: int) -> list[tuple[int, Message, bytes]]:
        oldest = max(position, self._time.now() - self._life)
        found = [
            (message.position, message, message.matched_by(match))
            for channel, match in self._matches(subscription)
            for message in self._cache.after(channel, oldest)
        ]
        found.sort(key=itemgetter(0))
        return found

    def _newest(self, found: list[tuple[int, Message, bytes]]) -> list[tuple[int, Message, bytes]]:
        counted = [index for index, (_, message, _) in enumerate(found) if not message.extra]
        return found if len(counted) <= self._limit else found[counted[-self._limit] :]

    def _cursor_after(self, sent: int, position: int) -> Cursor:
        if sent in self._rewound:  # never twice in a row, or a subscriber would not get on
            self._rewound.discard(sent)
            return Cursor(position)
        if not self._faults.strikes(Fault.REWIND):
            return Cursor(position)
        back = position - self._faults.random.randint(1, 64) * TICKS_PER_MILLISECOND
        self._rewound.add(back)
        return Cursor(back, REGION + 1)

    def listen(self, subscription: Subscription, listener: Listener) -> None:
        """Call the listener whenever something happens to one of these names, until `unlisten`."""
        for topic in subscription.topics():
            self._listeners.setdefault(topic, {})[listener] = None

    def unlisten(self, subscription: Subscription, listener: Listener) -> None:
        """Stop calling the listener."""
        for topic in subscription.topics():
            listeners = self._listeners[topic]
            listeners.pop(listener, None)
            if not listeners:
                del self._listeners[topic]

    def wake_all(self) -> None:
        """Call every listener once: something changed that concerns all polls."""
        for listener in {
            listener: None for listeners in self._listeners.values() for listener in listeners
        }:
            listener()

    def _wake(self, channel: str) -> None:
        listeners = self._listeners
        if not listeners:
            return
        for topic in (
            channel,
            *wildcards(channel),
            *(f":{group}" for group in self.groups.groups_of(channel)),
        ):
            for listener in listeners.get(topic, ()):
                listener()
