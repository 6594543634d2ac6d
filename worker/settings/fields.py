"""Every setting, with its default and its bounds."""

from pathlib import Path
from typing import Annotated, Final

from pydantic import AliasGenerator, Field, PrivateAttr, StringConstraints
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from worker.settings.files import read_channels, read_secret
from worker.settings.problems import Report
from worker.settings.values import (
    SECONDS_PER_DAY,
    ApiToken,
    Days,
    Duration,
    HttpAddress,
    Key,
    LogFormat,
    LogLevel,
    Origin,
    Origins,
    Percent,
    ShardOf,
    TextList,
    WholeDuration,
)
from worker.telemetry.address import LOOPBACK, Address

_Stripped = Annotated[str, StringConstraints(strip_whitespace=True)]
Secret = Annotated[_Stripped | None, Field(repr=False)]
SecretKey = Annotated[Key | None, Field(repr=False)]
Token = Annotated[ApiToken | None, Field(repr=False)]

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


class PassedIn(BaseSettings):
    """Settings whose values are passed in: ``read`` reads the other sources itself."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic-settings passes it
        init_settings: PydanticBaseSettingsSource,
        *_: PydanticBaseSettingsSource,
        **__: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take the values that are passed in: ``read`` reads the other sources itself."""
        return (init_settings,)


class Settings(PassedIn):
    """The settings in force.

    The docstring of each is its comment in ``deploy/.env.example``.
    """

    model_config = SettingsConfigDict(
        alias_generator=AliasGenerator(validation_alias=_variable_name),
        enable_decoding=False,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
        validate_default=False,
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
    """A file that holds PUBNUB_AUTH_TOKEN; read again every ten seconds."""

    user_id: str = Field("reaction-tally", min_length=1, max_length=92)
    """The worker's user id at PubNub."""
    origin: Origin = "ps.pndsn.com"
    """PubNub's host, with a port if need be."""
    tls: bool = True
    """Whether to speak TLS to PubNub."""

    redis_url: Secret = None
    """redis://, redis+cluster://, redis+sentinel:// or unix://; unset: an embedded Valkey."""
    redis_url_file: Path | None = None
    """A file that holds REDIS_URL."""
    wait_replicas: int = Field(0, ge=0, le=10)
    """Replicas that must have an event before a cursor passes it; 0: wait for none."""

    channels: TextList = ()
    """Channels to follow; a.* stands for all under a prefix."""
    channels_file: Path | None = None
    """A file with more channels, one a line; # begins a comment line."""

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

    shard: ShardOf = None
    """Which part of the channels this worker follows, such as 0/3; unset: all."""

    catchup_seconds: Duration = Field(600, gt=0, le=960)
    """Time for which PubNub's cache is trusted; below 330 s each idle answer is a gap."""
    settle_seconds: Duration = Field(60, ge=0.1, le=600)
    """Time by which PubNub's lists may lag behind."""
    tombstone_seconds: WholeDuration = Field(3600, ge=1)
    """Time for which a removal bars late additions; 3600 or 1h."""
    journal_seconds: WholeDuration = Field(86400, ge=60)
    """Time for which the journal of changes is kept; 86400 or 1d."""

    retention_days: Days = Field(0, ge=0, le=36500)
    """Days for which a message is counted, or a time such as 36h; 0: for ever."""

    history_rate: float = Field(20, gt=0, le=1000)
    """Requests a second for history, all processes together."""

    reconcile_seconds: Duration = Field(3600, ge=1)
    """Time within which an active channel is looked at; 3600, 60m or 1h."""
    reconcile_window: Duration = Field(86400, ge=1)
    """Past time that such a look covers, at least; 86400 or 24h."""
    reconcile_full_seconds: Duration = Field(604800, ge=1)
    """Time in which everything is looked at once; 604800 or 7d."""

    prune_limit: Percent = Field(20, ge=0, le=100)
    """Per cent of a channel that a reconcile may remove without --force."""
    prune_floor: int = Field(20, ge=0)
    """Reactions it may always remove, whatever part of the channel they are."""

    drain_seconds: Duration = Field(10, ge=0.1, le=3600)
    """Time that a stop may take to apply what was read."""

    http: HttpAddress = Address(LOOPBACK, 8080)
    """Where health and metrics are: host:port, :port (loopback, 0: a free one), or off."""

    api: bool = False
    """on: serve the counts over HTTP, too, at TALLY_HTTP under /v1."""
    api_token: Token = None
    """What clients of the API send; needed unless TALLY_HTTP is on loopback."""
    api_token_file: Path | None = None
    """A file that holds TALLY_API_TOKEN."""
    api_origins: Origins = ()
    """Origins whose pages in a browser may read the API, such as https://example.com; * for all."""

    board: bool = False
    """on: show the board, too, at TALLY_HTTP under /board."""

    log_format: LogFormat = "auto"
    """json, console, or auto: console on a terminal."""
    log_level: LogLevel = "info"
    """The least important entries to log."""

    @property
    def report(self) -> Report:
        """Sources and problems; empty for settings made by a program."""
        return self._report

    def source(self, name: str) -> str:
        """Return the source: environment, .env, a file, or default."""
        return self._report.sources.get(name, "default")

    def is_set(self, name: str) -> bool:
        """Tell whether a source gives the setting, such as TALLY_HTTP."""
        return FIELDS[name] in self.model_fields_set

    @property
    def retention_seconds(self) -> int:
        """How long a message is counted, as the scripts take it; 0: for ever."""
        return round(self.retention_days * SECONDS_PER_DAY)

    def all_channels(self) -> tuple[str, ...]:
        """Return TALLY_CHANNELS and the channels of the file, read again.

        Raises:
            ConfigurationError: The file is unreadable, or a name is malformed.
        """
        listed = read_channels(self.channels_file) if self.channels_file else ()
        return tuple(dict.fromkeys((*self.channels, *listed)))

    def read_token(self) -> str | None:
        """Return the access token of now: its file is read again.

        Raises:
            ConfigurationError: The file is unreadable or empty.
        """
        if self.auth_token_file is None:
            return self.auth_token

        return read_secret("PUBNUB_AUTH_TOKEN_FILE", self.auth_token_file)


SITES: Final = {"TALLY_API": "api", "TALLY_BOARD": "board"}
"""Settings that let a worker serve more than its own pages."""


def sites_of(settings: Settings) -> tuple[str, ...]:
    """Return those of ``SITES`` that are on."""
    return tuple(name for name, field in SITES.items() if getattr(settings, field))


FIELDS: Final = {_variable_name(attribute): attribute for attribute in Settings.model_fields}
"""``TALLY_HTTP`` → ``http``, and so on, in the order of the documentation."""

SECRETS: Final = (
    "PUBNUB_SUBSCRIBE_KEY",
    "PUBNUB_PUBLISH_KEY",
    "PUBNUB_SECRET_KEY",
    "PUBNUB_AUTH_TOKEN",
    "REDIS_URL",
    "TALLY_API_TOKEN",
)
"""Settings that are never shown, and may stand in a file of their own."""
