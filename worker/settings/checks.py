"""Checks of settings together, and against what Redis and PubNub accept.

``Needs`` says which checks must hold for a command.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from reaction_tally.errors import InvalidNameError
from reaction_tally.keys import Keys
from worker.certificates import check_environment
from worker.errors import ConfigurationError
from worker.settings.fields import FIELDS, Settings, sites_of
from worker.settings.problems import Problem
from worker.settings.sources import read
from worker.settings.values import SECONDS_PER_DAY
from worker.source.names import Names
from worker.source.route import Route
from worker.store.connection import connect

COMPARED_SETTLES: Final = 3
"""Settle times that a message must be kept, to be compared with PubNub's list."""


@dataclass(frozen=True, slots=True)
class Check:
    """A check of some settings, each of which is right by itself.

    ``run`` raises ConfigurationError, with a sentence that shows no secret.
    """

    names: tuple[str, ...]
    run: Callable[[Settings], object]


def _about(*names: str) -> Callable[[Callable[[Settings], object]], Check]:
    return lambda run: Check(names, run)


@_about("PUBNUB_SUBSCRIBE_KEY")
def _subscribe_key(settings: Settings) -> None:
    if not settings.subscribe_key:
        raise ConfigurationError(
            "PUBNUB_SUBSCRIBE_KEY is not set. Copy the keyset's subscribe key "
            "from PubNub's admin portal into the environment or into .env."
        )


@_about("PUBNUB_PUBLISH_KEY", "PUBNUB_SECRET_KEY")
def _publish_key(settings: Settings) -> None:
    if settings.secret_key and not settings.publish_key:
        raise ConfigurationError(
            "PUBNUB_SECRET_KEY needs PUBNUB_PUBLISH_KEY: requests are signed with both."
        )


@_about("PUBNUB_USER_ID")
def _user_id(settings: Settings) -> None:
    if not settings.user_id.strip():
        raise ConfigurationError("PUBNUB_USER_ID is empty: give this worker a user id.")


# The environment alone has the variables of the next two: they are no settings.
@_about()
def _proxy(settings: Settings) -> None:
    Route.to(settings.origin, tls=settings.tls)


@_about()
def _authorities(settings: Settings) -> None:
    if settings.tls:
        check_environment()


@_about("REDIS_URL")
def _redis_url(settings: Settings) -> None:
    if settings.redis_url:
        connect(settings.redis_url)


@_about("TALLY_NAMESPACE")
def _namespace(settings: Settings) -> None:
    try:
        Keys(settings.namespace)
    except InvalidNameError:
        raise ConfigurationError(
            f"TALLY_NAMESPACE is {settings.namespace!r}: "
            "use letters, digits, '_', '.' and '-' only, at least one."
        ) from None


@_about("TALLY_CHANNELS")
def _channel_names(settings: Settings) -> None:
    _accept_each(settings.channels, lambda name: Names.of([name]))


@_about("TALLY_CHANNEL_GROUPS")
def _group_names(settings: Settings) -> None:
    _accept_each(settings.channel_groups, lambda name: Names.of([], [name]))


def _accept_each(names: Iterable[str], accept: Callable[[str], object]) -> None:
    """Report every name that is refused, not only the first."""
    sentences = []
    for name in names:
        try:
            accept(name)
        except ConfigurationError as error:
            sentences.append(str(error))
    if sentences:
        raise ConfigurationError(" ".join(sentences))


_channels_file = Check(("TALLY_CHANNELS_FILE",), Settings.all_channels)


@_about("TALLY_TYPES", "TALLY_IGNORED_TYPES")
def _counted_type(settings: Settings) -> None:
    types, ignored = settings.types, settings.ignored_types
    if types and set(types) <= set(ignored):
        raise ConfigurationError(
            f"Nothing would be counted: TALLY_IGNORED_TYPES ({','.join(ignored)}) "
            f"has every type of TALLY_TYPES ({','.join(types)}). Change one of them."
        )


@_about("TALLY_SETTLE_SECONDS", "TALLY_TOMBSTONE_SECONDS")
def _long_tombstones(settings: Settings) -> None:
    if settings.tombstone_seconds <= settings.settle_seconds:
        raise ConfigurationError(
            f"TALLY_TOMBSTONE_SECONDS ({settings.tombstone_seconds}) must be more than "
            f"TALLY_SETTLE_SECONDS ({settings.settle_seconds:g}): "
            "a removal must outlive what may arrive late."
        )


@_about("TALLY_RETENTION_DAYS", "TALLY_SETTLE_SECONDS")
def _comparable(settings: Settings) -> None:
    if not settings.retention_days:
        return
    # A reaction is compared when it is a settle time old, and again a settle time later.
    # A repair begins up to a settle time later than that.
    least_seconds = max(1.0, COMPARED_SETTLES * settings.settle_seconds)
    if settings.retention_days * SECONDS_PER_DAY < least_seconds:
        least = math.ceil(least_seconds / SECONDS_PER_DAY * 1e6) / 1e6
        raise ConfigurationError(
            f"TALLY_RETENTION_DAYS ({settings.retention_days:g} days) is too short: "
            "a message would expire before it can be compared with PubNub's list. "
            f"Set it to {least:g} days at least, "
            f"which is {COMPARED_SETTLES} times TALLY_SETTLE_SECONDS "
            f"({settings.settle_seconds:g} s), or to 0: for ever."
        )


@_about("TALLY_API", "TALLY_BOARD", "TALLY_API_TOKEN", "TALLY_HTTP")
def _sites(settings: Settings) -> None:
    if not sites_of(settings):
        return
    name = sites_of(settings)[0]
    if settings.http is None:
        raise ConfigurationError(
            f"{name} is on, but TALLY_HTTP is off: set an address, such as 127.0.0.1:8080."
        )
    if not settings.api_token and not settings.http.is_loopback:
        raise ConfigurationError(
            f"{name} is on at {settings.http}, which other machines may reach: "
            "set TALLY_API_TOKEN or TALLY_API_TOKEN_FILE. "
            "Make a token with: openssl rand -hex 32. "
            "Or set TALLY_HTTP=127.0.0.1:8080, which needs none."
        )


@_about("TALLY_CHANNELS", "TALLY_CHANNELS_FILE", "TALLY_CHANNEL_GROUPS")
def _channels(settings: Settings) -> None:
    if not (settings.channel_groups or settings.all_channels()):
        raise ConfigurationError(
            "Nothing to follow: set TALLY_CHANNELS or TALLY_CHANNEL_GROUPS. "
            "A file in TALLY_CHANNELS_FILE must list a channel."
        )


CREDENTIALS: Final = (_publish_key, _user_id, _proxy, _authorities)
KEYSET: Final = (_subscribe_key, *CREDENTIALS)
REDIS: Final = (_redis_url, _namespace)
COUNTED: Final = (_counted_type,)
NAMES: Final = (_channel_names, _channels_file, _group_names)
WRITTEN: Final = (*CREDENTIALS, *REDIS, *NAMES, *COUNTED, _long_tombstones, _comparable, _sites)


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
REDIS_WRITES: Final = Needs(REDIS, only=(*REDIS_ONLY.only, "TALLY_JOURNAL_SECONDS"))
"""For commands that write to Redis, and do not speak to PubNub."""
BOARD: Final = Needs(REDIS, only=(*REDIS_ONLY.only, "TALLY_HTTP"))
"""For ``tally board``, which asks a worker, too, if one answers."""
CONFIG: Final = Needs(WRITTEN)
"""For ``tally config``: a setting that is missing may be set later."""
CONNECTS: Final = Needs((_subscribe_key, *WRITTEN))
"""For commands that speak to PubNub and Redis."""
FOLLOW: Final = Needs((*CONNECTS.checks, _channels))
"""For ``tally run``, which follows channels."""


def load(needs: Needs, *, checks_later: bool = False) -> Settings:
    """Read the settings that a command needs.

    With ``checks_later`` nothing is refused: ``tally doctor`` makes its checks itself.

    Raises:
        ConfigurationError: Some are wrong or missing; one line for each.
    """
    settings, problems = read(needs.only)
    if checks_later:
        return settings
    problems = _find_problems(settings, needs.checks, problems)
    if problems:
        raise settings.report.refusal(problems)
    return settings


def _find_problems(
    settings: Settings, checks: Iterable[Check], known: Iterable[Problem] = ()
) -> list[Problem]:
    problems = list(known)
    for check in checks:
        if any(problem.is_about(check.names) for problem in problems):
            continue
        try:
            check.run(settings)
        except ConfigurationError as error:
            names = filter(settings.is_set, check.names)
            sources = {name: settings.source(name) for name in names}
            problem = Problem(str(error), sources)
            problems.append(problem)
    return problems


def demand(settings: Settings, checks: Iterable[Check]) -> None:
    """Make sure that these checks find nothing.

    Raises:
        ConfigurationError: They do. It has all that a worker could not start with.
    """
    if _find_problems(settings, checks):
        raise everything_wrong(settings)


def everything_wrong(settings: Settings) -> ConfigurationError:
    """Return an error with all that a worker could not start with."""
    report = settings.report
    problems = _find_problems(settings, FOLLOW.checks, report.problems)
    sentences = map(str, (*problems, *report.unknown))
    return ConfigurationError(" ".join(sentences))


def warn_of_unknown(settings: Settings) -> None:
    """Log the unknown variables, in one entry."""
    import structlog  # noqa: PLC0415 - `tally show` starts without it

    if settings.report.unknown:
        unknown = "; ".join(map(str, settings.report.unknown))
        structlog.get_logger(__name__).warning("unknown_settings", settings=unknown)
