"""PubNub's SDK, bent straight: endpoints that send what they should.

Each trap is pinned in ``tests/source/test_sdk_traps.py``, whose tests say what here may go when the SDK mends one.
"""

import logging
from dataclasses import dataclass, field
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

# Whole seconds: the SDK asserts that its timeouts are integers.
POLL_SECONDS: Final = 310  # PubNub answers an idle poll after about 280
REQUEST_SECONDS: Final = 10
CONNECT_SECONDS: Final = 10

SUBSCRIPTIONS: Final = 512
"""Whose channels are remembered as they are sent."""

# Loggers that write whole URLs, the token among them.
_LOUD: Final = ("pubnub", "httpx", "httpcore", "hpack", "aiohttp")
_NOWHERE: Final = logging.NullHandler()


@dataclass(frozen=True, slots=True)
class Keyset:
    """What it takes to talk to PubNub. The secret key signs requests and needs the publish key beside it."""

    subscribe_key: str
    user_id: str
    publish_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    auth_token: str | None = field(default=None, repr=False)
    origin: str = "ps.pndsn.com"
    tls: bool = True


class Encoded:
    """Mixed into an endpoint: every parameter is percent-encoded."""

    pubnub: Any

    def encoded_params(self) -> dict[str, str]:
        token = self.pubnub._get_token()  # noqa: SLF001 - what the SDK itself is about to send, unencoded
        encoded = {"uuid": url_encode(self.pubnub.uuid)}
        return encoded | {"auth": url_encode(token)} if token else encoded


class Poll(Encoded, Subscribe):  # type: ignore[misc] # the SDK has no types
    """Has the groups' names signed as they are and sent encoded; the SDK signs what is encoded already."""

    def build_path(self) -> str:
        return str(
            self.SUBSCRIBE_PATH
            % (self.pubnub.config.subscribe_key, _encoded(frozenset(self._channels)))
        )

    def custom_params(self) -> dict[str, object]:
        params: dict[str, object] = super().custom_params()
        return (
            params | {"channel-group": ",".join(sorted(self._groups))} if self._groups else params
        )

    def encoded_params(self) -> dict[str, str]:
        encoded = super().encoded_params()
        return (
            encoded | {"channel-group": join_items_and_encode(self._groups, True)}
            if self._groups
            else encoded
        )


@lru_cache(SUBSCRIPTIONS)
def _encoded(channels: frozenset[str]) -> str:
    return str(join_channels(channels, True))  # by far the longest part of preparing a poll


class Group(Encoded, ListChannelsInChannelGroup):  # type: ignore[misc] # the SDK has no types
    pass


class Clock(Encoded, Time):  # type: ignore[misc] # the SDK has no types
    def encoded_params(self) -> dict[str, str]:
        return {"uuid": url_encode(self.pubnub.uuid)}


class Actions(Encoded, GetMessageActions):  # type: ignore[misc] # the SDK has no types
    """Sends ``start`` and ``end`` together, and always the limit; the SDK drops one and the other."""

    def custom_params(self) -> dict[str, str]:
        params = {"start": self._start, "end": self._end, "limit": self._limit}
        return {name: str(value) for name, value in params.items() if value is not None}


class NoSubscriptions:
    """Stands where the SDK wants a subscription manager: its own opens an event loop that it never closes."""

    def __init__(self, _pubnub: object) -> None: ...

    def get_custom_params(self) -> dict[str, str]:
        return {}


def configuration(keyset: Keyset, connections: int) -> Any:
    """Return the SDK's settings; its timeouts must be whole seconds."""
    config = PNConfiguration(keyset.subscribe_key, keyset.publish_key)
    config.secret_key = keyset.secret_key
    config.user_id, config.origin, config.ssl = keyset.user_id, keyset.origin, keyset.tls
    config.subscribe_request_timeout = POLL_SECONDS
    config.non_subscribe_request_timeout = REQUEST_SECONDS
    config.connect_timeout = CONNECT_SECONDS
    config.connections = connections  # ours; read by Transport
    config.disable_config_locking = False  # the SDK copies it, and warns of deprecation otherwise
    return config


def silence() -> None:
    """Keep the SDK and its HTTP client out of every log, whatever the levels there: they write tokens."""
    for name in _LOUD:
        logger = logging.getLogger(name)
        logger.setLevel(logging.CRITICAL + 1)
        logger.propagate = False
        logger.addHandler(_NOWHERE)
