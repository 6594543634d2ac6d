"""The SDK's endpoints and settings, corrected.

``tests/source/test_sdk_traps.py`` has a test for each mistake of the SDK.
Its docstring says which correction can go when the SDK is fixed.
"""

import logging
from dataclasses import KW_ONLY, dataclass, field
from functools import lru_cache
from typing import Any, Final

from pubnub.endpoints.channel_groups.list_channels_in_channel_group import (
    ListChannelsInChannelGroup,
)
from pubnub.endpoints.message_actions.get_message_actions import GetMessageActions
from pubnub.endpoints.pubsub.subscribe import Subscribe
from pubnub.endpoints.time import Time
from pubnub.pnconfiguration import PNConfiguration
from pubnub.utils import join_channels, join_items_and_encode, url_encode

from worker.source.route import Route

# Whole seconds, because the SDK asserts that its timeouts are integers.
POLL_SECONDS: Final = 310  # PubNub answers an idle poll after about 280
REQUEST_SECONDS: Final = 10
CONNECT_SECONDS: Final = 10

SUBSCRIPTIONS: Final = 4_096
"""The number of subscriptions whose encoded channels are cached."""

# These loggers write whole URLs, with the token.
_LOGGERS: Final = ("pubnub", "httpx", "httpcore", "hpack", "aiohttp")
_NO_HANDLER: Final = logging.NullHandler()


@dataclass(frozen=True, slots=True)
class Keyset:
    """A PubNub keyset, and its address. ``secret_key`` signs requests."""

    subscribe_key: str
    user_id: str
    _: KW_ONLY
    publish_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    auth_token: str | None = field(default=None, repr=False)
    origin: str = "ps.pndsn.com"
    tls: bool = True


class Encoded:
    """A mixin for endpoints: every parameter is percent-encoded."""

    pubnub: Any

    def encoded_params(self) -> dict[str, str]:
        encoded = {"uuid": _encoded_user(self.pubnub.uuid)}
        token = self.pubnub._get_token()  # noqa: SLF001 - the SDK sends this value, unencoded
        if token:
            encoded["auth"] = url_encode(token)
        return encoded


class Poll(Encoded, Subscribe):  # type: ignore[misc] # the SDK has no types
    """A poll that signs group names as they are, not encoded."""

    def build_path(self) -> str:
        channels = _encoded(frozenset(self._channels))
        return str(self.SUBSCRIBE_PATH % (self.pubnub.config.subscribe_key, channels))

    def custom_params(self) -> dict[str, object]:
        params: dict[str, object] = super().custom_params()
        if self._groups:
            params["channel-group"] = ",".join(sorted(self._groups))
        return params

    def encoded_params(self) -> dict[str, str]:
        encoded = super().encoded_params()
        if self._groups:
            encoded["channel-group"] = join_items_and_encode(self._groups, True)
        return encoded


_encoded_user: Final = lru_cache(1)(url_encode)


@lru_cache(SUBSCRIPTIONS)
def _encoded(channels: frozenset[str]) -> str:
    """Return the encoded channels: by far the longest step of a poll."""
    return str(join_channels(channels, True))


class Group(Encoded, ListChannelsInChannelGroup):  # type: ignore[misc] # the SDK has no types
    """The channels of a group."""


class Clock(Encoded, Time):  # type: ignore[misc] # the SDK has no types
    """PubNub's time, which needs no token."""

    def encoded_params(self) -> dict[str, str]:
        return {"uuid": _encoded_user(self.pubnub.uuid)}


class Actions(Encoded, GetMessageActions):  # type: ignore[misc] # the SDK has no types
    """A page of actions. The SDK drops ``end``, and a limit of 100."""

    def custom_params(self) -> dict[str, str]:
        params = {"start": self._start, "end": self._end, "limit": self._limit}
        return {name: str(value) for name, value in params.items() if value is not None}


class NoSubscriptions:
    """No subscription manager: the SDK's own one leaks a loop."""

    def __init__(self, _pubnub: object) -> None: ...

    def get_custom_params(self) -> dict[str, str]:
        return {}


def configuration(keyset: Keyset, route: Route) -> Any:
    """Return the SDK's settings."""
    config = PNConfiguration(keyset.subscribe_key, keyset.publish_key)
    config.secret_key = keyset.secret_key
    config.user_id = keyset.user_id
    config.origin = keyset.origin
    config.ssl = keyset.tls
    config.subscribe_request_timeout = POLL_SECONDS
    config.non_subscribe_request_timeout = REQUEST_SECONDS
    config.connect_timeout = CONNECT_SECONDS
    config.route = route  # our own attribute; Transport reads it
    config.disable_config_locking = False  # otherwise the SDK warns of a deprecation
    return config


def silence() -> None:
    """Keep the SDK and its HTTP clients, which write tokens, silent."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.CRITICAL + 1)
        logger.propagate = False
        logger.addHandler(_NO_HANDLER)
