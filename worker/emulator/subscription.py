"""The names of a long poll: channels, wildcards, and channel groups."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import unquote


@dataclass(frozen=True, slots=True)
class Subscription:
    """The names of one request, each once, in their order there."""

    channels: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    @classmethod
    def parse(cls, channels: str, groups: str) -> "Subscription":
        """Read comma-joined names: channels encoded, groups decoded."""
        names = map(unquote, channels.split(","))
        return cls(_unique(names), _unique(groups.split(",")))

    def topics(self) -> Iterator[str]:
        """Iterate over the names. Groups begin with a colon."""
        yield from self.channels
        for group in self.groups:
            yield f":{group}"


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, names)))


def wildcards(channel: str) -> Iterator[str]:
    """Iterate over the wildcards of a channel: ``a.*`` and ``a.b.*``."""
    first, *others = channel.split(".", 2)
    if others:
        yield f"{first}.*"
    if len(others) == 2:
        yield f"{first}.{others[0]}.*"


class Groups:
    """The channels of each channel group, and the groups of each channel."""

    def __init__(self) -> None:
        self._channels: dict[str, dict[str, None]] = {}
        self._groups: dict[str, set[str]] = {}

    def channels(self, group: str) -> list[str]:
        """Return a group's channels in the order they were added."""
        return list(self._channels.get(group, ()))

    def groups_of(self, channel: str) -> Iterable[str]:
        """Return the groups of a channel."""
        return self._groups.get(channel, ())

    def add(self, group: str, channels: Iterable[str]) -> None:
        """Add channels to a group."""
        for channel in channels:
            self._channels.setdefault(group, {})[channel] = None
            self._groups.setdefault(channel, set()).add(group)

    def remove(self, group: str, channels: Iterable[str]) -> None:
        """Remove these channels from a group."""
        for channel in channels:
            self._channels.get(group, {}).pop(channel, None)
            self._groups.get(channel, set()).discard(group)
