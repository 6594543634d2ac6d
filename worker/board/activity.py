"""The busiest messages: what changes, and how often. Nothing here does I/O."""

import heapq
import math
from collections.abc import Iterable, Mapping
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
        self.touched: set[Tally] | None = None
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
        """Note the new count of a tally."""
        self.counts[tally] = count
        if self.touched is not None:
            self.touched.add(tally)

    def begin_reading(self) -> None:
        """Note that all counts are asked for now."""
        self.touched = set()

    def give_up_reading(self) -> None:
        """Note that the counts could not be read."""
        self.touched = None

    def end_reading(self, counts: Counts) -> None:
        """Take what was read. A change that came meanwhile is newer."""
        newer = {tally: self.counts[tally] for tally in self.touched or ()}
        self.counts = flat(counts) | newer
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
        counts = [(count, tally) for tally, count in self.counts.items() if count > 0]
        counts.sort(key=lambda item: (-item[0], item[1]))
        shown = counts[:SHOWN_REACTIONS]
        return {
            "channel": self.channel,
            "message": self.timetoken,
            "reactions": [[*map(cut, tally), count] for count, tally in shown],
            "more": len(counts) - len(shown),
            "total": sum(count for count, _ in counts),
            "spark": self.buckets.counts(now),
            "minute": self.buckets.last_minute(now),
            "changed_at": round(1000 * self.changed_at),
        }


class Activity:
    """The messages and the channels that changed lately: a bounded number of them."""

    def __init__(self, held: int = HELD) -> None:
        self._held = held
        self._messages: dict[tuple[str, str], BusyMessage] = {}
        self._channels: dict[str, Buckets] = {}
        self.changes = Buckets()

    def __len__(self) -> int:
        return len(self._messages)

    def note(self, item: Change | Reset, now: float) -> None:
        """Note what a follower has found; ``now`` is Unix time."""
        if isinstance(item, Reset):
            self._forget_counts(item.channel)
            return
        self.changes.add(now)
        self._channel(item.channel).add(now)
        if item.ends_message:
            self._messages.pop((item.channel, item.message_timetoken), None)
            return
        message = self.message(item.channel, item.message_timetoken)
        message.note((item.type, item.value), item.count)
        message.warm(now)

    def message(self, channel: str, timetoken: str) -> BusyMessage:
        """Return a message, held from now on."""
        key = (channel, timetoken)
        message = self._messages.get(key)
        if message is None:
            message = self._messages[key] = BusyMessage(channel, timetoken)
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
        self._channels.clear()
        self.changes = Buckets()

    def busiest(self, limit: int) -> list[BusyMessage]:
        """Return the busiest messages, the busiest first."""
        return heapq.nlargest(limit, self._messages.values(), key=attrgetter("heat"))

    def busiest_of(self, channel: str, limit: int) -> list[BusyMessage]:
        """Return the busiest messages of one channel."""
        own = (item for item in self._messages.values() if item.channel == channel)
        return heapq.nlargest(limit, own, key=attrgetter("heat"))

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

    def _forget_counts(self, channel: str) -> None:
        for message in self._messages.values():
            if message.channel == channel:
                message.is_whole = False
                message.counts.clear()
                if message.touched is not None:
                    message.touched.clear()

    def _keep_bounds(self) -> None:
        if len(self._messages) > self._held + SLACK:
            kept = self.busiest(self._held)
            self._messages = {(item.channel, item.timetoken): item for item in kept}


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


def begin(messages: Iterable[BusyMessage]) -> None:
    """Note that all counts of these messages are asked for now."""
    for message in messages:
        message.begin_reading()


def give_up(messages: Iterable[BusyMessage]) -> None:
    """Note that the counts of these messages could not be read."""
    for message in messages:
        message.give_up_reading()
