"""What is wrong with the settings, all at once: each for itself, together, and as Redis and PubNub will see them."""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from worker.errors import ConfigurationError
from worker.settings.channel_list import read_list
from worker.settings.fields import READING, SECRETS, Settings, read, refusal
from worker.settings.sources import Problem
from worker.source.names import Names
from worker.store.connection import connect
from worker.store.keys import Keys

Look = Callable[[Settings], Iterable[str]]
"""Returns what is wrong, a sentence each; it names the settings, and shows no secret."""


@dataclass(frozen=True, slots=True)
class Check:
    """A look at some settings, taken where each of them is right by itself."""

    names: tuple[str, ...]
    look: Look

    def wrong(self, settings: Settings) -> Iterator[Problem]:
        """Yield what is wrong, with where it was set."""
        places = tuple(
            (name, settings.source(name)) for name in self.names if settings.is_set(name)
        )
        yield from (Problem(sentence, places) for sentence in self.look(settings))


def _refused(attempt: Callable[[], object]) -> Iterator[str]:
    try:
        attempt()
    except ConfigurationError as error:
        yield str(error)


def _refused_channels(settings: Settings) -> Iterator[str]:
    for name in settings.channels:
        yield from _refused(lambda: Names.of([name]))  # noqa: B023 - called at once


def _refused_groups(settings: Settings) -> Iterator[str]:
    for name in settings.channel_groups:
        yield from _refused(lambda: Names.of((), [name]))  # noqa: B023 - called at once


def _unsigned(settings: Settings) -> Iterator[str]:
    if settings.secret_key and not settings.publish_key:
        yield "PUBNUB_SECRET_KEY needs PUBNUB_PUBLISH_KEY: requests are signed with both."


def _nobody(settings: Settings) -> Iterator[str]:
    if not settings.user_id.strip():
        yield "PUBNUB_USER_ID is empty: give this worker a user id."


def _unreadable_address(settings: Settings) -> Iterator[str]:
    url = settings.redis_url
    return _refused(lambda: url and connect(url))


def _unreadable_list(settings: Settings) -> Iterator[str]:
    path = settings.channels_file
    return _refused(lambda: path and read_list(path))


def _nothing_counted(settings: Settings) -> Iterator[str]:
    chosen, ignored = frozenset(settings.types), frozenset(settings.ignored_types)
    if chosen and chosen <= ignored:
        yield (
            f"Nothing would be counted: TALLY_IGNORED_TYPES ({','.join(sorted(ignored))}) has every type of "
            f"TALLY_TYPES ({','.join(sorted(chosen))}). Change one of them."
        )


def _short_lives(settings: Settings) -> Iterator[str]:
    if settings.tombstone_seconds <= settings.settle_seconds:
        yield (
            f"TALLY_TOMBSTONE_SECONDS ({settings.tombstone_seconds}) must be more than TALLY_SETTLE_SECONDS "
            f"({settings.settle_seconds:g}): a removal must outlive what may arrive late."
        )


def _no_keyset(settings: Settings) -> Iterator[str]:
    if settings.subscribe_key is None:
        yield (
            "PUBNUB_SUBSCRIBE_KEY is not set. Copy the keyset's subscribe key from PubNub's admin portal into the "
            "environment or into .env."
        )


def _nothing_followed(settings: Settings) -> Iterator[str]:
    if not (settings.channel_groups or settings.all_channels()):
        listed = f" The file {settings.channels_file} lists none." if settings.channels_file else ""
        yield f"Nothing to follow: set TALLY_CHANNELS or TALLY_CHANNEL_GROUPS.{listed}"


KEYSET: Final = (
    Check(("PUBNUB_SUBSCRIBE_KEY",), _no_keyset),
    Check(("PUBNUB_PUBLISH_KEY", "PUBNUB_SECRET_KEY"), _unsigned),
    Check(("PUBNUB_USER_ID",), _nobody),
)
COUNTED: Final = (Check(("TALLY_TYPES", "TALLY_IGNORED_TYPES"), _nothing_counted),)
REDIS: Final = (
    Check(("REDIS_URL",), _unreadable_address),
    Check(("TALLY_NAMESPACE",), lambda settings: _refused(lambda: Keys(settings.namespace))),
)
WRITTEN: Final = (
    *KEYSET[1:],
    *REDIS,
    Check(("TALLY_CHANNELS",), _refused_channels),
    Check(("TALLY_CHANNELS_FILE",), _unreadable_list),
    Check(("TALLY_CHANNEL_GROUPS",), _refused_groups),
    *COUNTED,
    Check(("TALLY_SETTLE_SECONDS", "TALLY_TOMBSTONE_SECONDS"), _short_lives),
)
FOLLOWED: Final = (
    Check(("TALLY_CHANNELS", "TALLY_CHANNELS_FILE", "TALLY_CHANNEL_GROUPS"), _nothing_followed),
)


@dataclass(frozen=True, slots=True)
class Needs:
    """What a command needs: the settings it uses (none named: all), and what must hold of them."""

    checks: tuple[Check, ...]
    only: tuple[str, ...] = ()


REDIS_ONLY: Final = Needs(REDIS, READING)
"""Reads tallies from Redis."""
SHOW: Final = Needs(WRITTEN)
"""Tells what is in force; what is not set may be set later."""
CONNECTS: Final = Needs((KEYSET[0], *WRITTEN))
"""Speaks to PubNub and Redis."""
FOLLOW: Final = Needs((KEYSET[0], *WRITTEN, *FOLLOWED))
"""Follows what is configured."""


def load(purpose: Needs) -> Settings:
    """Read the settings a command needs.

    Raises:
        ConfigurationError: some are wrong or missing; the sentence names them all, each with its source, and never
            shows a secret's value.
    """
    settings, wrong = read(purpose.only)
    if wrong := [*wrong, *found(settings, purpose.checks, wrong)]:
        raise refusal(wrong, settings.given.unknown)
    return settings


def load_usable(purpose: Needs) -> Settings:
    """Read the settings for somebody who looks at each part, whatever is wrong with another.

    Raises:
        ConfigurationError: one is wrong by itself; the sentence names everything that is wrong.
    """
    settings, wrong = read(purpose.only)
    if wrong:
        raise refusal([*wrong, *found(settings, purpose.checks, wrong)], settings.given.unknown)
    return settings


def found(
    settings: Settings, checks: Iterable[Check], known: Collection[Problem] = ()
) -> list[Problem]:
    """Return what these checks find, but about settings that are known to be wrong."""
    wrong: list[Problem] = []
    for check in checks:
        if not any(_about(each).intersection(check.names) for each in (*known, *wrong)):
            wrong.extend(check.wrong(settings))
    return wrong


def _about(wrong: Problem) -> frozenset[str]:
    # Where its file cannot be read, nothing is known of a secret.
    return wrong.names.union(name for name in SECRETS if f"{name}_FILE" in wrong.names)


def demand(settings: Settings, checks: Iterable[Check]) -> None:
    """See that these checks find nothing.

    Raises:
        ConfigurationError: they do; the sentences tell all that a worker could not start with, not these alone, and
            what is no setting.
    """
    if found(settings, checks):
        raise ConfigurationError(
            " ".join(map(str, (*found(settings, FOLLOW.checks), *settings.given.unknown)))
        )


def warn_of_unknown(settings: Settings) -> None:
    """Log, once, what looks like a setting and is none."""
    import structlog  # noqa: PLC0415 - who only reads does not wait for it

    if unknown := settings.given.unknown:
        log = structlog.get_logger(__name__)
        log.warning("unknown_settings", settings="; ".join(map(str, unknown)))
