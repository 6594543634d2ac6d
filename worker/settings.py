"""Every setting, in one place: from the environment, or from ``.env``. Only ``app`` and ``cli`` see them."""

import re
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AliasChoices, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from worker.errors import ConfigurationError
from worker.telemetry.logs import LogFormat

_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_ORIGIN: Final = re.compile(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:]+\](:[0-9]{1,5})?")

_AGE: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]+)?)([smhd])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}

Names = Annotated[tuple[str, ...], NoDecode]
"""Comma-separated text."""


def _named(name: str, default: Any, **constraints: Any) -> Any:
    return Field(default, validation_alias=AliasChoices(name), **constraints)


class Settings(BaseSettings):
    """What the environment says. Lists are comma-separated text; an empty value is no value."""

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", env_ignore_empty=True, extra="ignore", frozen=True
    )

    subscribe_key: str | None = _named("PUBNUB_SUBSCRIBE_KEY", None, description="The keyset's subscribe key.")
    publish_key: str | None = _named(
        "PUBNUB_PUBLISH_KEY", None, description="Its publish key; needed only beside the secret key."
    )
    secret_key: str | None = _named(
        "PUBNUB_SECRET_KEY", None, repr=False, description="Its secret key, to sign requests with."
    )
    auth_token: str | None = _named(
        "PUBNUB_AUTH_TOKEN", None, repr=False, description="An access token, where Access Manager wants one."
    )
    user_id: str = _named(
        "PUBNUB_USER_ID", "reaction-tally", min_length=1, max_length=92, description="Who the worker is to PubNub."
    )
    origin: str = _named("PUBNUB_ORIGIN", "ps.pndsn.com", description="PubNub's host, with a port if need be.")
    tls: bool = _named("PUBNUB_TLS", default=True, description="Whether to speak TLS to PubNub.")

    redis_url: str | None = _named(
        "REDIS_URL",
        None,
        repr=False,
        description="redis://, rediss:// or unix://; unset: an embedded Valkey, its data in .tally/.",
    )

    channels: Names = _named("TALLY_CHANNELS", (), description="Channels to follow; a.* stands for all under a prefix.")
    channel_groups: Names = _named("TALLY_CHANNEL_GROUPS", (), description="Channel groups to follow.")
    types: Names = _named("TALLY_TYPES", (), description="Action types to count; none: all.")
    ignored_types: Names = _named(
        "TALLY_IGNORED_TYPES",
        ("edited", "deleted", "threadRootId"),
        description="Action types never counted: the Chat SDK's bookkeeping.",
    )
    namespace: str = _named("TALLY_NAMESPACE", "tally", description="What every key in Redis begins with.")
    channels_per_subscription: int = _named(
        "TALLY_CHANNELS_PER_SUBSCRIPTION", 50, ge=1, le=100, description="Channels that share one long poll."
    )
    catchup_seconds: float = _named(
        "TALLY_CATCHUP_SECONDS", 600, gt=0, le=960, description="How far back PubNub's cache is trusted, in seconds."
    )
    settle_seconds: float = _named(
        "TALLY_SETTLE_SECONDS", 60, ge=0.1, le=600, description="How long PubNub's lists may lag behind, in seconds."
    )
    tombstone_seconds: int = _named(
        "TALLY_TOMBSTONE_SECONDS", 3600, ge=1, description="How long a removal bars late additions, in seconds."
    )
    journal_seconds: int = _named(
        "TALLY_JOURNAL_SECONDS", 86400, ge=60, description="How long the journal of changes is kept, in seconds."
    )
    retention_days: float = _named(
        "TALLY_RETENTION_DAYS", 0, ge=0, le=36500, description="How long a message is counted, in days; 0: for ever."
    )
    history_rate: float = _named(
        "TALLY_HISTORY_RATE", 20, gt=0, le=1000, description="Requests a second for history, all processes together."
    )
    reconcile_seconds: float = _named(
        "TALLY_RECONCILE_SECONDS",
        3600,
        ge=1,
        description="How often a worker goes round all channels; 3600, 60m or 1h.",
    )
    reconcile_window: float = _named(
        "TALLY_RECONCILE_WINDOW", 86400, ge=1, description="How much of the past each round looks at; 24h, or seconds."
    )
    reconcile_full_seconds: float = _named(
        "TALLY_RECONCILE_FULL_SECONDS", 604800, ge=1, description="In what time everything is looked at once; 7d."
    )
    prune_limit: float = _named(
        "TALLY_PRUNE_LIMIT",
        20,
        ge=0,
        le=100,
        description="How much of a channel a reconcile may take away unasked, in per cent.",
    )
    prune_floor: int = _named(
        "TALLY_PRUNE_FLOOR", 20, ge=0, description="How many reactions it may take away whatever part of all they are."
    )
    drain_seconds: float = _named(
        "TALLY_DRAIN_SECONDS",
        10,
        ge=0.1,
        le=3600,
        description="How long a stop may take to apply what was read, in seconds.",
    )
    log_format: LogFormat = _named(
        "TALLY_LOG_FORMAT", LogFormat.AUTO, description="json, console, or auto: console on a terminal."
    )
    log_level: Literal["debug", "info", "warning", "error"] = _named(
        "TALLY_LOG_LEVEL", "info", description="The least important entries to log."
    )

    @field_validator("channels", "channel_groups", "types", "ignored_types", mode="before")
    @classmethod
    def _split(cls, text: object) -> object:
        return tuple(part.strip() for part in text.split(",") if part.strip()) if isinstance(text, str) else text

    @field_validator("reconcile_seconds", "reconcile_window", "reconcile_full_seconds", mode="before")
    @classmethod
    def _seconds(cls, text: object) -> object:
        if isinstance(text, str) and (age := _AGE.fullmatch(text.strip())):
            return float(age[1]) * _UNITS[age[2]]
        return text

    @field_validator("prune_limit", mode="before")
    @classmethod
    def _per_cent(cls, text: object) -> object:
        return text.strip().removesuffix("%").strip() if isinstance(text, str) else text

    @field_validator("subscribe_key", "publish_key", "secret_key")
    @classmethod
    def _check_key(cls, key: str | None) -> str | None:
        if key is not None and not _KEY.fullmatch(key):
            raise ValueError("a key has only letters, digits, '-' and '_'; copy it again from PubNub's admin portal")
        return key

    @field_validator("origin")
    @classmethod
    def _check_origin(cls, origin: str) -> str:
        if not _ORIGIN.fullmatch(origin):
            raise ValueError("give a host name, and a port if need be, without https:// and without a path")
        return origin

    @model_validator(mode="after")
    def _check_lives(self) -> Self:
        if self.tombstone_seconds <= self.settle_seconds:
            raise ValueError(
                f"TALLY_TOMBSTONE_SECONDS ({self.tombstone_seconds}) must be more than TALLY_SETTLE_SECONDS "
                f"({self.settle_seconds:g}): a removal must outlive what may arrive late"
            )
        return self

    @field_validator("log_level", "log_format", mode="before")
    @classmethod
    def _lower(cls, text: object) -> object:
        return text.lower() if isinstance(text, str) else text


def load() -> Settings:
    """Read the settings.

    Raises:
        ConfigurationError: some are wrong; the sentence names them all, and never shows a secret's value.
    """
    try:
        return Settings()
    except ValidationError as error:
        lines = [
            f"  {(wrong['loc'] or ('Together',))[0]}: {wrong['msg'].removeprefix('Value error, ')}."
            for wrong in error.errors()
        ]
        raise ConfigurationError("These settings are wrong:\n" + "\n".join(lines)) from None
    except UnicodeDecodeError:
        raise ConfigurationError("The file .env is not UTF-8 text.") from None
