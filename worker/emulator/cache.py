"""The catch-up cache: the newest messages of each channel.

Older ones are dropped without a sign.
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from json.encoder import encode_basestring_ascii as quote
from operator import attrgetter
from typing import Final

from worker.emulator.subscription import wildcards

CACHED_MESSAGES: Final = 100
"""PubNub's limit, for a channel and for an answer."""

_by_position = attrgetter("position")


@dataclass(frozen=True, slots=True)
class Message:
    """One message in the stream, as bytes for all subscribers."""

    position: int
    """Its place in the stream, in ticks."""
    body: bytes
    _: KW_ONLY
    copies: int = 1
    """How often an answer repeats it."""
    extra: bool = False
    """Whether a fault repeats it. It counts against no limit."""
    verbatim: bool = False
    """Whether it is sent without the ``b`` of a group or wildcard."""

    def matched_by(self, name: str | None) -> bytes:
        """Return the bytes for a matching group or wildcard, or for none."""
        if name is None or self.verbatim:
            return self.body

        fields = self.body[:-1]
        match = quote(name).encode()
        return b'%s,"b":%s}' % (fields, match)


class Cache:
    """The newest messages of every channel, ascending by position."""

    def __init__(self) -> None:
        self._messages: dict[str, list[Message]] = {}
        self._matching: dict[str, list[str]] = {}

    def append(self, channel: str, message: Message) -> None:
        """Keep one more message, with the largest position so far."""
        if channel not in self._messages:
            self._add_channel(channel)

        messages = self._messages[channel]
        messages.append(message)
        if len(messages) > CACHED_MESSAGES:
            dropped = first_counted(messages)
            del messages[:dropped]

    def _add_channel(self, channel: str) -> None:
        self._messages[channel] = []
        for wildcard in wildcards(channel):
            channels = self._matching.setdefault(wildcard, [])
            channels.append(channel)

    def channels_like(self, wildcard: str) -> Iterable[str]:
        """Return the channels with messages that a wildcard matches."""
        return self._matching.get(wildcard, ())

    def after(self, channel: str, position: int) -> list[Message]:
        """Return a channel's messages behind that position, ascending."""
        if self.newest(channel) <= position:
            return []  # most channels of a poll have nothing new
        messages = self._messages[channel]
        begin = bisect_right(messages, position, key=_by_position)
        return messages[begin:]

    def positions(self) -> dict[str, int]:
        """Return the position of each channel's last message."""
        return {channel: self.newest(channel) for channel in self._messages}

    def newest(self, channel: str) -> int:
        """Return the position of a channel's last message, or 0."""
        messages = self._messages.get(channel)
        return messages[-1].position if messages else 0


def first_counted(messages: Iterable[Message]) -> int:
    """Return where the newest hundred begin, not counting ``extra`` ones."""
    counted = [index for index, message in enumerate(messages) if not message.extra]
    if len(counted) <= CACHED_MESSAGES:
        return 0
    return counted[-CACHED_MESSAGES]
