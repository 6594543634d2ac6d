"""What can still be caught up with: the newest messages of each channel; older ones are gone without a sign."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii as quote
from operator import attrgetter

from worker.emulator.subscription import wildcards

_by_position = attrgetter("position")


@dataclass(frozen=True, slots=True)
class Message:
    """One message in the stream: its position (ticks) and its bytes, made once for all subscribers.

    `copies` is how often an answer repeats it. An `extra` one is a fault's repetition and counts against no limit. A
    `verbatim` one is sent exactly as it is; others gain the `b` of the group or wildcard that matched.
    """

    position: int
    body: bytes
    copies: int = 1
    extra: bool = False
    verbatim: bool = False

    def matched_by(self, name: str | None) -> bytes:
        """Return the bytes for a subscriber; `name` is the group or wildcard, None for the channel itself."""
        if name is None or self.verbatim:
            return self.body
        return b'%s,"b":%s}' % (self.body[:-1], quote(name).encode())


class Cache:
    """The newest messages of every channel, each list ascending by position."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._messages: dict[str, list[Message]] = {}
        self._counted: dict[str, int] = {}
        self._matching: dict[str, list[str]] = {}

    def append(self, channel: str, message: Message) -> None:
        """Keep one more message, larger in position than all before; the oldest beyond the limit is dropped."""
        if channel not in self._messages:
            self._messages[channel] = []
            self._counted[channel] = 0
            for pattern in wildcards(channel):
                self._matching.setdefault(pattern, []).append(channel)
        self._messages[channel].append(message)
        self._counted[channel] += not message.extra
        if self._counted[channel] > self._limit:
            self._drop_oldest(channel)

    def _drop_oldest(self, channel: str) -> None:
        kept = self._messages[channel]
        index = next(index for index, message in enumerate(kept) if not message.extra)
        del kept[: index + 1]
        self._counted[channel] -= 1

    def channels_like(self, wildcard: str) -> Iterable[str]:
        """Return the channels ever published to that a wildcard matches."""
        return self._matching.get(wildcard, ())

    def after(self, channel: str, position: int) -> list[Message]:
        """Return a channel's messages behind that position, ascending."""
        kept = self._messages.get(channel)
        if not kept or kept[-1].position <= position:
            return []
        return kept[bisect_right(kept, position, key=_by_position) :]

    def newest(self, channel: str) -> int:
        """Return the position of a channel's last message, 0 without one."""
        kept = self._messages.get(channel)
        return kept[-1].position if kept else 0
