"""The keys, the user and the address that requests to PubNub need."""

from dataclasses import KW_ONLY, dataclass, field

from worker.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Keyset:
    """One PubNub keyset, and how to reach it.

    ``secret_key`` signs requests. It needs ``publish_key``.
    """

    subscribe_key: str
    user_id: str
    _: KW_ONLY
    publish_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    auth_token: str | None = field(default=None, repr=False)
    origin: str = "ps.pndsn.com"
    tls: bool = True


def check(keyset: Keyset) -> None:
    """Check what the SDK would only notice later.

    Raises:
        ConfigurationError: A setting is missing; it is named.
    """
    if not keyset.subscribe_key.strip():
        raise ConfigurationError(
            "PUBNUB_SUBSCRIBE_KEY is empty: set it to the keyset's subscribe key."
        )
    if not keyset.user_id.strip():
        raise ConfigurationError("PUBNUB_USER_ID is empty: give this worker a user id.")
    if keyset.secret_key and not keyset.publish_key:
        raise ConfigurationError(
            "PUBNUB_SECRET_KEY needs PUBNUB_PUBLISH_KEY: requests are signed with both."
        )
