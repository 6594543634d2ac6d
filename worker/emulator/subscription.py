"""What one long poll listens to: channels, wildcards, and channel groups."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import unquote


@dataclass(frozen=True, slots=True)
class Subscription:
    """The names of one subscribe request, each once, in the order they were asked for."""

    channels: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    @classmethod
    def parse(cls, channels: str, groups: str) -> "Subscription":
        """Read the still encoded, comma-joined path segment, and the decoded `channel-group` parameter."""
        return cls(_names(unquote(name) for name in channels.split(",")), _names(groups.split(",")))

    def topics(self) -> Iterator[str]:
        """Iterate over the names a publisher calls: channels and wildcards as they are, groups after a colon."""
        yield from self.channels
        for group in self.groups:
            yield f":{group}"


def _names(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name))


def wildcards(channel: str) -> Iterator[str]:
    """Iterate over the wildcards that match a channel: PubNub knows two levels, `a.*` and `a.b.*`."""
    first, dot, rest = channel.partition(".")
    if dot:
        yield f"{first}.*"
        second, dot, _ = rest.partition(".")
        if dot:
            yield f"{first}.{second}.*"


class Groups:
    """Which channels are in which channel group, and the other way round."""

    def __init__(self) -> None:
        self._channels: dict[str, dict[str, None]] = {}
        self._groups: dict[str, set[str]] = {}

    def channels(self, group: str) -> list[str]:
        """Return a group's channels in the order they were added; none for an unknown group."""
        return list(self._channels.get(group, ()))

    def groups_of(self, channel: str) -> Iterable[str]:
        """Return the groups a channel is in."""
        return self._groups.get(channel, ())

    def add(self, group: str, channels: Iterable[str]) -> None:
        """Put channels into a group, which begins to exist with its first channel."""
        for channel in channels:
            self._channels.setdefault(group, {})[channel] = None
            self._groups.setdefault(channel, set()).add(group)

    def remove(self, group: str, channels: Iterable[str] | None = None) -> None:
        """Take these channels out of a group; all of them, and the group with them, for None."""
        for channel in self.channels(group) if channels is None else channels:
            self._channels.get(group, {}).pop(channel, None)
            self._groups.get(channel, set()).discard(group)
        if not self._channels.get(group):
            self._channels.pop(group, None)
