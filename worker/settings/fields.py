"""Every setting, in one place, and what may stand there. ``checks`` looks at them together."""

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator

from worker.errors import ConfigurationError
from worker.settings.address import LOOPBACK, Address
from worker.settings.channel_list import read_list, split_names
from worker.settings.sources import Problem, SettingSources, Unknown, read_given, read_secret
from worker.telemetry.log_format import LogFormat

_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_ORIGIN: Final = re.compile(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:]+\](:[0-9]{1,5})?")

_AGE: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]+)?)([smhd])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}

Names = tuple[str, ...]
"""Comma-separated text."""


def _named(name: str, default: Any, **constraints: Any) -> Any:
    return Field(default, validation_alias=name, **constraints)


def _file_of(name: str) -> Any:
    return _named(f"{name}_FILE", None, description=f"A file that holds {name}.")


class Settings(BaseModel):
    """What is in force. Lists are comma-separated text."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    _given: SettingSources = PrivateAttr(default_factory=SettingSources)

    subscribe_key: str | None = _named(
        "PUBNUB_SUBSCRIBE_KEY", None, repr=False, description="The keyset's subscribe key."
    )
    subscribe_key_file: Path | None = _file_of("PUBNUB_SUBSCRIBE_KEY")
    publish_key: str | None = _named(
        "PUBNUB_PUBLISH_KEY",
        None,
        repr=False,
        description="Its publish key; needed only beside the secret key.",
    )
    publish_key_file: Path | None = _file_of("PUBNUB_PUBLISH_KEY")
    secret_key: str | None = _named(
        "PUBNUB_SECRET_KEY", None, repr=False, description="Its secret key, to sign requests with."
    )
    secret_key_file: Path | None = _file_of("PUBNUB_SECRET_KEY")
    auth_token: str | None = _named(
        "PUBNUB_AUTH_TOKEN",
        None,
        repr=False,
        description="An access token, where Access Manager wants one.",
    )
    auth_token_file: Path | None = _named(
        "PUBNUB_AUTH_TOKEN_FILE",
        None,
        description="A file that holds PUBNUB_AUTH_TOKEN; read again after a refusal.",
    )
    user_id: str = _named(
        "PUBNUB_USER_ID",
        "reaction-tally",
        min_length=1,
        max_length=92,
        description="Who the worker is to PubNub.",
    )
    origin: str = _named(
        "PUBNUB_ORIGIN", "ps.pndsn.com", description="PubNub's host, with a port if need be."
    )
    tls: bool = _named("PUBNUB_TLS", default=True, description="Whether to speak TLS to PubNub.")

    redis_url: str | None = _named(
        "REDIS_URL",
        None,
        repr=False,
        description="redis://, rediss:// or unix://; unset: an embedded Valkey, its data in .tally/.",
    )
    redis_url_file: Path | None = _file_of("REDIS_URL")

    channels: Names = _named(
        "TALLY_CHANNELS", (), description="Channels to follow; a.* stands for all under a prefix."
    )
    channels_file: Path | None = _named(
        "TALLY_CHANNELS_FILE",
        None,
        description="A file with more channels, one a line; a line with # first is a comment.",
    )
    channel_groups: Names = _named(
        "TALLY_CHANNEL_GROUPS", (), description="Channel groups to follow."
    )
    types: Names = _named("TALLY_TYPES", (), description="Action types to count; none: all.")
    ignored_types: Names = _named(
        "TALLY_IGNORED_TYPES",
        ("edited", "deleted", "threadRootId"),
        description="Action types never counted: the Chat SDK's bookkeeping.",
    )
    namespace: str = _named(
        "TALLY_NAMESPACE", "tally", description="What every key in Redis begins with."
    )
    channels_per_subscription: int = _named(
        "TALLY_CHANNELS_PER_SUBSCRIPTION",
        50,
        ge=1,
        le=100,
        description="Channels that share one long poll.",
    )
    catchup_seconds: float = _named(
        "TALLY_CATCHUP_SECONDS",
        600,
        gt=0,
        le=960,
        description="How far back PubNub's cache is trusted, in seconds; below 330 each idle answer is a gap.",
    )
    settle_seconds: float = _named(
        "TALLY_SETTLE_SECONDS",
        60,
        ge=0.1,
        le=600,
        description="How long PubNub's lists may lag behind, in seconds.",
    )
    tombstone_seconds: int = _named(
        "TALLY_TOMBSTONE_SECONDS",
        3600,
        ge=1,
        description="How long a removal bars late additions, in seconds.",
    )
    journal_seconds: int = _named(
        "TALLY_JOURNAL_SECONDS",
        86400,
        ge=60,
        description="How long the journal of changes is kept, in seconds.",
    )
    retention_days: float = _named(
        "TALLY_RETENTION_DAYS",
        0,
        ge=0,
        le=36500,
        description="How long a message is counted, in days; 0: for ever.",
    )
    history_rate: float = _named(
        "TALLY_HISTORY_RATE",
        20,
        gt=0,
        le=1000,
        description="Requests a second for history, all processes together.",
    )
    reconcile_seconds: float = _named(
        "TALLY_RECONCILE_SECONDS",
        3600,
        ge=1,
        description="How often a worker goes round all channels; 3600, 60m or 1h.",
    )
    reconcile_window: float = _named(
        "TALLY_RECONCILE_WINDOW",
        86400,
        ge=1,
        description="How much of the past each round looks at; 24h, or seconds.",
    )
    reconcile_full_seconds: float = _named(
        "TALLY_RECONCILE_FULL_SECONDS",
        604800,
        ge=1,
        description="In what time everything is looked at once; 7d.",
    )
    prune_limit: float = _named(
        "TALLY_PRUNE_LIMIT",
        20,
        ge=0,
        le=100,
        description="How much of a channel a reconcile may take away unasked, in per cent.",
    )
    prune_floor: int = _named(
        "TALLY_PRUNE_FLOOR",
        20,
        ge=0,
        description="How many reactions it may take away whatever part of all they are.",
    )
    drain_seconds: float = _named(
        "TALLY_DRAIN_SECONDS",
        10,
        ge=0.1,
        le=3600,
        description="How long a stop may take to apply what was read, in seconds.",
    )
    http: Address | None = _named(
        "TALLY_HTTP",
        Address(LOOPBACK, 8080),
        description="Where health and metrics are served: host:port, :port on loopback, port 0 for a free one, or off.",
    )
    log_format: LogFormat = _named(
        "TALLY_LOG_FORMAT",
        LogFormat.AUTO,
        description="json, console, or auto: console on a terminal.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = _named(
        "TALLY_LOG_LEVEL", "info", description="The least important entries to log."
    )

    @field_validator("channels", "channel_groups", "types", "ignored_types", mode="before")
    @classmethod
    def _split_text(cls, text: object) -> object:
        return split_names(text) if isinstance(text, str) else text

    @field_validator(
        "reconcile_seconds", "reconcile_window", "reconcile_full_seconds", mode="before"
    )
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
            raise ValueError(
                "a key has only letters, digits, '-' and '_'; copy it again from PubNub's admin portal"
            )
        return key

    @field_validator("origin")
    @classmethod
    def _check_origin(cls, origin: str) -> str:
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(
                "give a host name, and a port if need be, without https:// and without a path"
            )
        return origin

    @field_validator("log_level", "log_format", mode="before")
    @classmethod
    def _lower(cls, text: object) -> object:
        return text.lower() if isinstance(text, str) else text

    @field_validator("http", mode="before")
    @classmethod
    def _read_address(cls, text: object) -> object:
        if isinstance(text, str):
            return None if text.strip().lower() == "off" else Address.read(text.strip())
        return text

    def model_post_init(self, context: Any, /) -> None:
        """Keep where the values come from: that is given as the context."""
        if isinstance(context, SettingSources):
            self._given = context

    @property
    def given(self) -> SettingSources:
        """What was given, and where."""
        return self._given

    def is_set(self, name: str) -> bool:
        """Tell whether a person chose the value of a setting, as in ``is_set("TALLY_HTTP")``."""
        return FIELDS[name] in self.model_fields_set

    def source(self, name: str) -> str:
        """Return where a setting's value comes from: environment, .env, the file's path, or default."""
        return self._given.source(name)

    def all_channels(self) -> tuple[str, ...]:
        """Return every channel to follow: the configured ones, and those in the file, which is read anew.

        Raises:
            ConfigurationError: the file cannot be read, or PubNub would refuse a name in it; the sentence gives the
                file and the lines.
        """
        listed = read_list(self.channels_file) if self.channels_file else ()
        return tuple(dict.fromkeys((*self.channels, *listed)))

    def read_token(self) -> str | None:
        """Return the access token as it is now: where it is in a file, that is read anew.

        Raises:
            ConfigurationError: the file cannot be read, or is empty; the sentence never quotes it.
        """
        if self.auth_token_file is None:
            return self.auth_token
        try:
            return read_secret(self.auth_token_file)
        except ConfigurationError as error:
            raise ConfigurationError(f"PUBNUB_AUTH_TOKEN_FILE: {error}") from None


FIELDS: Final = {
    str(field.validation_alias): attribute for attribute, field in Settings.model_fields.items()
}
"""A setting's name → its attribute, in order."""

SECRETS: Final = (
    "PUBNUB_SUBSCRIBE_KEY",
    "PUBNUB_PUBLISH_KEY",
    "PUBNUB_SECRET_KEY",
    "PUBNUB_AUTH_TOKEN",
    "REDIS_URL",
)
"""What may stand in a file of its own, and is shown to nobody."""

READING: Final = ("REDIS_URL", "TALLY_NAMESPACE", "TALLY_LOG_FORMAT", "TALLY_LOG_LEVEL")
"""All that a command uses which only reads Redis."""


def read(only: Collection[str] = ()) -> tuple[Settings, list[Problem]]:
    """Return the settings, these alone or all, and what is wrong; what is, is left at its default."""
    given = read_given(only or FIELDS, SECRETS, FIELDS)
    try:
        return Settings.model_validate(given.texts, context=given), given.wrong
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
    failed = {str(wrong["loc"][0]): wrong["msg"].removeprefix("Value error, ") for wrong in found}
    texts = {name: text for name, text in given.texts.items() if name not in failed}
    wrong = [given.find_wrong(f"{name}: {sentence}.", (name,)) for name, sentence in failed.items()]
    return Settings.model_validate(texts, context=given), given.wrong + wrong


def refusal(wrong: Collection[Problem], unknown: Iterable[Unknown] = ()) -> ConfigurationError:
    """Return the error that tells all that is wrong, a line each, and then what is no setting: maybe that is why."""
    order = list(FIELDS)
    lines = sorted(
        wrong,
        key=lambda each: min(
            (order.index(name) for name in each.names & FIELDS.keys()), default=-1
        ),
    )
    return ConfigurationError(
        "These settings are wrong:\n" + "\n".join(f"  {each}" for each in (*lines, *unknown))
    )


def load() -> Settings:
    """Read the settings, each looked at for itself; ``configuration`` looks at them together, too.

    Raises:
        ConfigurationError: some are wrong; the sentence names them all, and never shows a secret's value.
    """
    settings, wrong = read()
    if wrong:
        raise refusal(wrong, settings.given.unknown)
    return settings
