"""Every setting, with its default and its bounds. ``checks`` looks at settings together."""

from pathlib import Path
from typing import Annotated, Final

from pydantic import AliasGenerator, BaseModel, ConfigDict, Field, PrivateAttr

from worker.settings.address import LOOPBACK, Address
from worker.settings.channel_list import read_list
from worker.settings.problems import Report
from worker.settings.text_file import read_secret
from worker.settings.values import (
    Duration,
    HttpAddress,
    Key,
    LogFormatName,
    LogLevel,
    Origin,
    Percent,
    TextList,
)
from worker.telemetry.logs import LogFormat

Secret = Annotated[str | None, Field(repr=False)]
SecretKey = Annotated[Key | None, Field(repr=False)]

_PUBNUB: Final = (
    "subscribe_key",
    "publish_key",
    "secret_key",
    "auth_token",
    "user_id",
    "origin",
    "tls",
)
_PREFIXES: Final = {"redis_url": "", **dict.fromkeys(_PUBNUB, "PUBNUB_")}


def _variable_name(attribute: str) -> str:
    """Return ``TALLY_HTTP`` for ``http``, and ``PUBNUB_TLS`` for ``tls``."""
    prefix = _PREFIXES.get(attribute.removesuffix("_file"), "TALLY_")
    return f"{prefix}{attribute.upper()}"


class Settings(BaseModel):
    """The settings in force.

    The docstring of each is its comment in ``deploy/.env.example``.
    """

    model_config = ConfigDict(
        alias_generator=AliasGenerator(validation_alias=_variable_name),
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    _report: Report = PrivateAttr(default_factory=Report)

    subscribe_key: SecretKey = None
    """The keyset's subscribe key."""
    subscribe_key_file: Path | None = None
    """A file that holds PUBNUB_SUBSCRIBE_KEY."""
    publish_key: SecretKey = None
    """The keyset's publish key; needed only beside the secret key."""
    publish_key_file: Path | None = None
    """A file that holds PUBNUB_PUBLISH_KEY."""
    secret_key: SecretKey = None
    """The keyset's secret key, which signs requests."""
    secret_key_file: Path | None = None
    """A file that holds PUBNUB_SECRET_KEY."""
    auth_token: Secret = None
    """An access token, where Access Manager wants one."""
    auth_token_file: Path | None = None
    """A file that holds PUBNUB_AUTH_TOKEN; read again after a refusal."""
    user_id: str = Field("reaction-tally", min_length=1, max_length=92)
    """The worker's user id at PubNub."""
    origin: Origin = "ps.pndsn.com"
    """PubNub's host, with a port if need be."""
    tls: bool = True
    """Whether to speak TLS to PubNub."""

    redis_url: Secret = None
    """redis://, rediss:// or unix://; unset: an embedded Valkey, its data in .tally/."""
    redis_url_file: Path | None = None
    """A file that holds REDIS_URL."""

    channels: TextList = ()
    """Channels to follow; a.* stands for all under a prefix."""
    channels_file: Path | None = None
    """A file with more channels, one a line; a line with # first is a comment."""
    channel_groups: TextList = ()
    """Channel groups to follow."""
    types: TextList = ()
    """Action types to count; none: all."""
    ignored_types: TextList = ("edited", "deleted", "threadRootId")
    """Action types never counted: the Chat SDK's bookkeeping."""
    namespace: str = "tally"
    """The first part of every key in Redis."""
    channels_per_subscription: int = Field(50, ge=1, le=100)
    """Channels that share one long poll."""
    catchup_seconds: float = Field(600, gt=0, le=960)
    """How far back PubNub's cache is trusted, in seconds; below 330 each idle answer is a gap."""
    settle_seconds: float = Field(60, ge=0.1, le=600)
    """How long PubNub's lists may lag behind, in seconds."""
    tombstone_seconds: int = Field(3600, ge=1)
    """How long a removal bars late additions, in seconds."""
    journal_seconds: int = Field(86400, ge=60)
    """How long the journal of changes is kept, in seconds."""
    retention_days: float = Field(0, ge=0, le=36500)
    """How long a message is counted, in days; 0: for ever."""
    history_rate: float = Field(20, gt=0, le=1000)
    """Requests a second for history, all processes together."""
    reconcile_seconds: Duration = Field(3600, ge=1)
    """How often a worker goes round all channels; 3600, 60m or 1h."""
    reconcile_window: Duration = Field(86400, ge=1)
    """How much of the past each round looks at; 24h, or seconds."""
    reconcile_full_seconds: Duration = Field(604800, ge=1)
    """In what time everything is looked at once; 7d, or seconds."""
    prune_limit: Percent = Field(20, ge=0, le=100)
    """How much of a channel a reconcile may remove without --force, in per cent."""
    prune_floor: int = Field(20, ge=0)
    """How many reactions it may remove without --force, whatever part of the channel they are."""
    drain_seconds: float = Field(10, ge=0.1, le=3600)
    """How long a stop may take to apply what was read, in seconds."""
    http: HttpAddress = Address(LOOPBACK, 8080)
    """Address of health and metrics: host:port, :port (loopback), port 0 (a free port), or off."""
    log_format: LogFormatName = LogFormat.AUTO
    """json, console, or auto: console on a terminal."""
    log_level: LogLevel = "info"
    """The least important entries to log."""

    @property
    def report(self) -> Report:
        """What reading these settings found; nothing for settings made by a program."""
        return self._report

    def source(self, name: str) -> str:
        """Return where a value comes from: environment, .env, the file's path, or default."""
        return self._report.sources.get(name, "default")

    def is_set(self, name: str) -> bool:
        """Tell whether a setting was given a value, as in ``is_set("TALLY_HTTP")``."""
        return FIELDS[name] in self.model_fields_set

    def all_channels(self) -> tuple[str, ...]:
        """Return TALLY_CHANNELS and the channels in the file, which is read again.

        Raises:
            ConfigurationError: The file is unreadable, or PubNub would refuse a name in it.
        """
        listed = read_list(self.channels_file) if self.channels_file else ()
        return tuple(dict.fromkeys((*self.channels, *listed)))

    def read_token(self) -> str | None:
        """Return the access token as it is now: its file is read again.

        Raises:
            ConfigurationError: The file is unreadable or empty.
        """
        if self.auth_token_file is None:
            return self.auth_token

        return read_secret("PUBNUB_AUTH_TOKEN_FILE", self.auth_token_file)


FIELDS: Final = {
    str(field.validation_alias): attribute for attribute, field in Settings.model_fields.items()
}
"""Setting → attribute, as in ``TALLY_HTTP`` → ``http``, in the order of the documentation."""

SECRETS: Final = (
    "PUBNUB_SUBSCRIBE_KEY",
    "PUBNUB_PUBLISH_KEY",
    "PUBNUB_SECRET_KEY",
    "PUBNUB_AUTH_TOKEN",
    "REDIS_URL",
)
"""Settings that may stand in a file of their own, and are never shown."""
