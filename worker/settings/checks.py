"""Checks of settings together, and against what Redis and PubNub accept.

``Needs`` says which checks must hold for a command.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from worker.errors import ConfigurationError
from worker.settings.fields import FIELDS, Settings
from worker.settings.problems import Problem, refusal
from worker.settings.sources import read
from worker.source.names import Names
from worker.store.connection import connect
from worker.store.keys import Keys


@dataclass(frozen=True, slots=True)
class Check:
    """A check of some settings, each of which is right by itself.

    ``run`` raises ConfigurationError, with a sentence that shows no secret.
    """

    names: tuple[str, ...]
    run: Callable[[Settings], None]

    def find_problems(self, settings: Settings) -> list[Problem]:
        """Return the problem, if there is one."""
        try:
            self.run(settings)
        except ConfigurationError as error:
            names = filter(settings.is_set, self.names)
            sources = {name: settings.source(name) for name in names}
            return [Problem(str(error), sources)]
        return []


def _about(*names: str) -> Callable[[Callable[[Settings], None]], Check]:
    """Make a check of these settings out of a function."""
    return lambda run: Check(names, run)


def _require(condition: object, sentence: str) -> None:
    if not condition:
        raise ConfigurationError(sentence)


def _accept_each(names: Iterable[str], accept: Callable[[str], object]) -> None:
    """Report every name that is refused, not only the first."""
    sentences = []
    for name in names:
        try:
            accept(name)
        except ConfigurationError as error:
            sentences.append(str(error))

    _require(not sentences, " ".join(sentences))


@_about("PUBNUB_SUBSCRIBE_KEY")
def _need_subscribe_key(settings: Settings) -> None:
    _require(
        settings.subscribe_key,
        "PUBNUB_SUBSCRIBE_KEY is not set. Copy the keyset's subscribe key "
        "from PubNub's admin portal into the environment or into .env.",
    )


@_about("PUBNUB_PUBLISH_KEY", "PUBNUB_SECRET_KEY")
def _need_publish_key(settings: Settings) -> None:
    _require(
        settings.publish_key or not settings.secret_key,
        "PUBNUB_SECRET_KEY needs PUBNUB_PUBLISH_KEY: requests are signed with both.",
    )


@_about("PUBNUB_USER_ID")
def _need_user_id(settings: Settings) -> None:
    _require(
        settings.user_id.strip(),
        "PUBNUB_USER_ID is empty: give this worker a user id.",
    )


@_about("REDIS_URL")
def _need_redis_url(settings: Settings) -> None:
    if settings.redis_url:
        connect(settings.redis_url)


@_about("TALLY_NAMESPACE")
def _need_namespace(settings: Settings) -> None:
    Keys(settings.namespace)


@_about("TALLY_CHANNELS")
def _need_channel_names(settings: Settings) -> None:
    _accept_each(settings.channels, lambda name: Names.of([name]))


@_about("TALLY_CHANNEL_GROUPS")
def _need_group_names(settings: Settings) -> None:
    _accept_each(settings.channel_groups, lambda name: Names.of([], [name]))


@_about("TALLY_CHANNELS_FILE")
def _need_channels_file(settings: Settings) -> None:
    settings.all_channels()


@_about("TALLY_TYPES", "TALLY_IGNORED_TYPES")
def _need_counted_type(settings: Settings) -> None:
    types, ignored = settings.types, settings.ignored_types
    _require(
        not types or set(types) - set(ignored),
        f"Nothing would be counted: TALLY_IGNORED_TYPES ({','.join(ignored)}) "
        f"has every type of TALLY_TYPES ({','.join(types)}). Change one of them.",
    )


@_about("TALLY_SETTLE_SECONDS", "TALLY_TOMBSTONE_SECONDS")
def _need_long_tombstones(settings: Settings) -> None:
    _require(
        settings.tombstone_seconds > settings.settle_seconds,
        f"TALLY_TOMBSTONE_SECONDS ({settings.tombstone_seconds}) must be more than "
        f"TALLY_SETTLE_SECONDS ({settings.settle_seconds:g}): "
        "a removal must outlive what may arrive late.",
    )


@_about("TALLY_CHANNELS", "TALLY_CHANNELS_FILE", "TALLY_CHANNEL_GROUPS")
def _need_channels(settings: Settings) -> None:
    _require(
        settings.channel_groups or settings.all_channels(),
        "Nothing to follow: set TALLY_CHANNELS or TALLY_CHANNEL_GROUPS. "
        "A file in TALLY_CHANNELS_FILE must list a channel.",
    )


CREDENTIALS: Final = (_need_publish_key, _need_user_id)
KEYSET: Final = (_need_subscribe_key, *CREDENTIALS)
REDIS: Final = (_need_redis_url, _need_namespace)
COUNTED: Final = (_need_counted_type,)
FOLLOWED: Final = (_need_channels,)
WRITTEN: Final = (
    *CREDENTIALS,
    *REDIS,
    _need_channel_names,
    _need_channels_file,
    _need_group_names,
    *COUNTED,
    _need_long_tombstones,
)


@dataclass(frozen=True, slots=True)
class Needs:
    """The checks that must hold for a command, and the settings it uses."""

    checks: tuple[Check, ...]
    only: tuple[str, ...] = tuple(FIELDS)


REDIS_ONLY: Final = Needs(
    REDIS,
    only=(
        "REDIS_URL",
        "TALLY_NAMESPACE",
        "TALLY_LOG_FORMAT",
        "TALLY_LOG_LEVEL",
    ),
)
"""For commands that read tallies from Redis."""
SHOW: Final = Needs(WRITTEN)
"""For ``tally config``: a setting that is missing may be set later."""
CONNECTS: Final = Needs((_need_subscribe_key, *WRITTEN))
"""For commands that speak to PubNub and Redis."""
FOLLOW: Final = Needs((_need_subscribe_key, *WRITTEN, *FOLLOWED))
"""For ``tally run``, which follows channels."""


def load(needs: Needs) -> Settings:
    """Read the settings that a command needs.

    Raises:
        ConfigurationError: Some are wrong or missing; one line for each.
    """
    settings = load_usable(needs)
    problems = find_problems(settings, needs.checks)
    if problems:
        raise refusal(problems, settings.report.unknown)
    return settings


def load_usable(needs: Needs) -> Settings:
    """Read the settings for ``tally doctor``, which runs the checks later.

    Raises:
        ConfigurationError: One is wrong by itself; one line for each problem.
    """
    settings, known = read(needs.only)
    if known:
        problems = find_problems(settings, needs.checks, known)
        raise refusal(problems, settings.report.unknown)
    return settings


def find_problems(
    settings: Settings, checks: Iterable[Check], known: Iterable[Problem] = ()
) -> list[Problem]:
    """Return the known problems, and what the checks find about other settings."""
    problems = list(known)
    for check in checks:
        if not any(problem.is_about(check.names) for problem in problems):
            problems += check.find_problems(settings)
    return problems


def demand(settings: Settings, checks: Iterable[Check]) -> None:
    """Make sure that these checks find nothing.

    Raises:
        ConfigurationError: They do. It tells all that a worker could not start with.
    """
    if not find_problems(settings, checks):
        return

    problems = find_problems(settings, FOLLOW.checks)
    sentences = map(str, (*problems, *settings.report.unknown))
    raise ConfigurationError(" ".join(sentences))


def warn_of_unknown(settings: Settings) -> None:
    """Log the unknown variables, in one entry."""
    import structlog  # noqa: PLC0415 - `tally show` starts without it

    if settings.report.unknown:
        log = structlog.get_logger(__name__)
        log.warning(
            "unknown_settings",
            settings="; ".join(map(str, settings.report.unknown)),
        )
