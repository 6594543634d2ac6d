"""The SDK's listener, as its documentation shows it, for the peers that use one."""

from collections.abc import Callable
from typing import Any

from pubnub.callbacks import SubscribeCallback
from pubnub.pubnub import PubNub

from tests.benchmarks.bare import configured
from tests.benchmarks.contenders.order import Order

Count = Callable[[str, str], None]
"""Counts an action: the key of its message's counts, and its tally."""


class Listener(SubscribeCallback):  # type: ignore[misc] # the SDK has no types
    """Hands every action to ``count``."""

    def __init__(self, count: Count) -> None:
        self._count = count

    def message_action(self, _pubnub: Any, action: Any) -> None:
        """Count it: the SDK does not say whether it was added or removed."""
        key = f"tally:{{{action.channel}}}:counts:{action.message_timetoken}"
        self._count(key, f"{action.type}:{action.value}")

    def status(self, _pubnub: Any, _status: Any) -> None:
        """Nothing is wanted of it."""

    def presence(self, _pubnub: Any, _presence: Any) -> None:
        """As above."""


def listen(order: Order, count: Count) -> None:
    """Subscribe; the SDK calls from a thread of its own, which never ends."""
    pubnub = PubNub(configured(order.origin))
    pubnub.add_listener(Listener(count))
    pubnub.subscribe().channels(list(order.names)).execute()
