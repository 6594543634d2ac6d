"""The names of long polls, and the polls that wait for them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from urllib.parse import unquote

Listener = Callable[[], None]
"""Called when a poll may have an answer. It must not raise."""


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

    def topics(self) -> list[str]:
        """Return all names. Groups begin with a colon."""
        groups = (f":{group}" for group in self.groups)
        return [*self.channels, *groups]


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    nonempty = filter(None, names)
    return tuple(dict.fromkeys(nonempty))


def wildcards(channel: str) -> list[str]:
    """Return the wildcards of a channel: ``a.*`` and ``a.b.*``."""
    wildcards = []
    parts = channel.split(".", 2)
    for count in range(1, len(parts)):
        prefix = ".".join(parts[:count])
        wildcards.append(f"{prefix}.*")
    return wildcards


class Groups:
    """The channels of each channel group."""

    def __init__(self) -> None:
        self._channels: dict[str, dict[str, None]] = {}

    def channels(self, group: str) -> list[str]:
        """Return a group's channels in the order they were added."""
        return list(self._channels.get(group, ()))

    def groups_of(self, channel: str) -> Iterator[str]:
        """Iterate over the groups of a channel."""
        for group, channels in self._channels.items():
            if channel in channels:
                yield group

    def add(self, group: str, channels: Iterable[str]) -> None:
        """Add channels to a group."""
        members = self._channels.setdefault(group, {})
        members.update(dict.fromkeys(channels))

    def remove(self, group: str, channels: Iterable[str]) -> None:
        """Remove these channels from a group."""
        members = self._channels.get(group, {})
        for channel in channels:
            members.pop(channel, None)


class Listeners:
    """Callbacks by channel, wildcard and channel group."""

    def __init__(self) -> None:
        # Dicts keep the order, so that a seed repeats a history. Sets do not.
        self._listeners: dict[str, dict[Listener, None]] = {}

    def add(self, subscription: Subscription, listener: Listener) -> None:
        """Call the listener for each event of these names, until ``remove``."""
        for topic in subscription.topics():
            listeners = self._listeners.setdefault(topic, {})
            listeners[listener] = None

    def remove(self, subscription: Subscription, listener: Listener) -> None:
        """Call the listener no longer."""
        for topic in subscription.topics():
            self._listeners[topic].pop(listener, None)

    def call(self, topics: Iterable[str]) -> None:
        """Call every listener of these topics."""
        for topic in topics:
            for listener in self._listeners.get(topic, ()):
                listener()

    def call_all(self) -> None:
        """Call every listener once."""
        listeners = chain(*self._listeners.values())
        for listener in dict.fromkeys(listeners):
            listener()
