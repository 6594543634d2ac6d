"""The polls that wait, by the names they wait for."""

from collections.abc import Callable, Iterable

from worker.emulator.subscription import Subscription

Listener = Callable[[], None]
"""Called when a poll may have an answer. It must not raise."""


class Listeners:
    """Callbacks by channel, wildcard and channel group."""

    def __init__(self) -> None:
        # Dicts keep the order, so that a seed repeats a history. Sets do not.
        self._listeners: dict[str, dict[Listener, None]] = {}

    def add(self, subscription: Subscription, listener: Listener) -> None:
        """Call the listener for each event of these names, until ``remove``."""
        for topic in subscription.topics():
            self._listeners.setdefault(topic, {})[listener] = None

    def remove(self, subscription: Subscription, listener: Listener) -> None:
        """Call the listener no longer."""
        for topic in subscription.topics():
            listeners = self._listeners[topic]
            listeners.pop(listener, None)
            if not listeners:
                del self._listeners[topic]

    def call(self, topics: Iterable[str]) -> None:
        """Call every listener of these topics."""
        if not self._listeners:
            return
        for topic in topics:
            for listener in self._listeners.get(topic, ()):
                listener()

    def call_all(self) -> None:
        """Call every listener once."""
        listeners: dict[Listener, None] = {}
        for of_topic in self._listeners.values():
            listeners |= of_topic
        for listener in listeners:
            listener()
