"""The busiest messages: what changes, and how often. Nothing here does I/O."""

import heapq
import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from operator import attrgetter
from typing import Any, Final

from reaction_tally.values import Change, Counts, Reset
from worker.board.buckets import Buckets

HELD: Final = 10_000
"""So many messages are held, and so many channels."""
SLACK: Final = 1_000
"""So many more may come before the coldest go."""
HALF_LIFE: Final = 60.0
"""After so many seconds a change counts half."""
SHOWN_REACTIONS: Final = 5
LONGEST_TEXT: Final = 200
"""Characters of a text that others chose."""

Tally = tuple[str, str]
"""Type and value."""
Touched = set[Tally]
"""What has changed while counts are being read."""


class BusyMessage:
    """A message that changed lately."""

    __slots__ = (
        "buckets",
        "changed_at",
        "channel",
        "counts",
        "heat",
        "is_whole",
        "timetoken",
        "touched",
    )

    def __init__(self, channel: str, timetoken: str) -> None:
        self.channel = channel
        self.timetoken = timetoken
        self.counts: dict[Tally, int] = {}
        self.is_whole = False
        """Whether the counts are all counts, and not only those that changed."""
        self.touched: Touched | None = None
        """What changed while the counts are being read; None while they are not."""
        self.heat = -math.inf
        """The logarithm of its changes; each counts half after a minute."""
        self.changed_at = 0.0
        self.buckets = Buckets()

    @property
    def id(self) -> str:
        """Its name in the page. A timetoken has no space."""
        return f"{self.timetoken} {self.channel}"

    def note(self, tally: Tally, count: int) -> None:
        """Note the new count of a tally. One that is gone takes no room."""
        self.counts.pop(tally, None)
        if count > 0:
            self.counts[tally] = count
        if self.touched is not None:
            self.touched.add(tally)

    def forget_counts(self) -> None:
        """Note that the counts are unknown. Those that are being read may be older."""
        self.is_whole = False
        self.counts.clear()
        self.touched = None

    def begin_reading(self) -> Touched:
        """Note that all counts are asked for now; return what names this reading."""
        self.touched = set()
        return self.touched

    def give_up_reading(self, touched: Touched) -> None:
        """Note that the counts could not be read."""
        if self.touched is touched:
            self.touched = None

    def end_reading(self, touched: Touched, counts: Counts) -> None:
        """Take what was read, unless it may be too old. A change that came meanwhile is newer."""
        if self.touched is not touched:
            return
        read = flat(counts)
        for tally in touched:
            read.pop(tally, None)
            if tally in self.counts:
                read[tally] = self.counts[tally]
        self.counts = read
        self.touched = None
        self.is_whole = True

    def warm(self, now: float) -> None:
        """Count a change of now."""
        heat = now / HALF_LIFE
        low, high = sorted((self.heat, heat))
        self.heat = high + math.log2(1 + 2 ** (low - high))
        self.changed_at = now
        self.buckets.add(now)

    def row(self, now: float) -> dict[str, Any]:
        """Return the message as the page shows it."""
        ranked = [(-count, tally) for tally, count in self.counts.items()]
        shown = heapq.nsmallest(SHOWN_REACTIONS, ranked)
        return {
            "channel": self.channel,
            "message": self.timetoken,
            "reactions": [[*map(cut, tally), -count] for count, tally in shown],
            "more": len(ranked) - len(shown),
            "total": sum(self.counts.values()),
            "spark": self.buckets.counts(now),
            "minute": self.buckets.last_minute(now),
            "changed_at": round(1000 * self.changed_at),
        }


class Activity:
    """The messages and the channels that changed lately: a bounded number of them."""

    def __init__(self, held: int = HELD) -> None:
        self._held = held
        self._messages: dict[str, dict[str, BusyMessage]] = {}
        """By their channels and timetokens."""
        self._size = 0
        self._channels: dict[str, Buckets] = {}
        self.changes = Buckets()

    def __len__(self) -> int:
        return self._size

    def note(self, item: Change | Reset, now: float) -> None:
        """Note what a follower has found; ``now`` is Unix time."""
        if isinstance(item, Reset):
            for message in self._of(item.channel):
                message.forget_counts()
            return
        self.changes.add(now)
        self._channel(item.channel).add(now)
        if item.ends_message:
            self._drop(item.channel, item.message_timetoken)
            return
        message = self.message(item.channel, item.message_timetoken)
        message.note((item.type, item.value), item.count)
        message.warm(now)

    def message(self, channel: str, timetoken: str) -> BusyMessage:
        """Return a message, held from now on."""
        message = self._messages.get(channel, {}).get(timetoken)
        if message is None:
            message = BusyMessage(channel, timetoken)
            self._hold(message)
            self._keep_bounds()
        return message

    def recall(self, channel: str, timetoken: str, changed_at: float) -> None:
        """Hold a message that changed before anybody looked; the time is Unix time."""
        message = self.message(channel, timetoken)
        message.heat = max(message.heat, changed_at / HALF_LIFE)
        message.changed_at = max(message.changed_at, changed_at)

    def clear(self) -> None:
        """Forget everything: nobody has looked for a while."""
        self._messages.clear()
        self._size = 0
        self._channels.clear()
        self.changes = Buckets()

    def busiest(self, limit: int) -> list[BusyMessage]:
        """Return the busiest messages, the busiest first."""
        return heapq.nlargest(limit, self._all(), key=attrgetter("heat"))

    def busiest_of(self, channel: str, limit: int) -> list[BusyMessage]:
        """Return the busiest messages of one channel."""
        return heapq.nlargest(limit, self._of(channel), key=attrgetter("heat"))

    def last_minute(self, channel: str, now: float) -> int:
        """Return how often a channel changed in the last minute."""
        buckets = self._channels.get(channel)
        return buckets.last_minute(now) if buckets else 0

    def _channel(self, channel: str) -> Buckets:
        # The channel that changed last stands last.
        buckets = self._channels.pop(channel, None) or Buckets()
        self._channels[channel] = buckets
        if len(self._channels) > self._held:
            del self._channels[next(iter(self._channels))]
        return buckets

    def forget_all_counts(self) -> None:
        """Note that changes may have been missed: all counts are read again."""
        for message in self._all():
            message.forget_counts()

    def _all(self) -> Iterator[BusyMessage]:
        return chain.from_iterable(map(dict.values, self._messages.values()))

    def _of(self, channel: str) -> Iterable[BusyMessage]:
        return self._messages.get(channel, {}).values()

    def _hold(self, message: BusyMessage) -> None:
        self._messages.setdefault(message.channel, {})[message.timetoken] = message
        self._size += 1

    def _drop(self, channel: str, timetoken: str) -> None:
        of_channel = self._messages.get(channel, {})
        if of_channel.pop(timetoken, None):
            self._size -= 1
        if not of_channel:
            self._messages.pop(channel, None)

    def _keep_bounds(self) -> None:
        if self._size <= self._held + SLACK:
            return
        kept = self.busiest(self._held)
        self._messages, self._size = {}, 0
        for message in kept:
            self._hold(message)


def flat(counts: Mapping[str, Mapping[str, int]]) -> dict[Tally, int]:
    """Return the counts by type and value."""
    return {
        (type, value): count for type, values in counts.items() for value, count in values.items()
    }


def cut(text: str) -> str:
    """Return a text that others chose, of a bounded length."""
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"


def unread(messages: Iterable[BusyMessage]) -> dict[str, list[BusyMessage]]:
    """Return channel → those messages whose counts are to be read."""
    channels: dict[str, list[BusyMessage]] = {}
    for message in messages:
        if not message.is_whole and message.touched is None:
            channels.setdefault(message.channel, []).append(message)
    return channels


Readings = list[tuple[BusyMessage, Touched]]
"""Messages whose counts are being read."""


def begin(messages: Iterable[BusyMessage]) -> Readings:
    """Note that all counts of these messages are asked for now."""
    return [(message, message.begin_reading()) for message in messages]


def give_up(readings: Readings) -> None:
    """Note that those counts could not be read which are still missing."""
    for message, touched in readings:
        message.give_up_reading(touched)
