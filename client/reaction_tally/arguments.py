"""Arguments of readers, checked: a wrong one is a mistake of the program, and no empty answer."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

from reaction_tally.keys import is_position
from reaction_tally.rows import PageQuery
from reaction_tally.top import TopQuery
from reaction_tally.values import Reactor
from reaction_tally.who import WhoQuery, read_after

MOST_MESSAGES: Final = 1_000
"""Messages of one page. Redis does nothing else meanwhile."""
MOST_NAMES: Final = 50
"""Names of one reaction."""
MOST_REACTORS: Final = 1_000
"""Users of one page of ``who``."""
MOST_TOP: Final = 1_000
"""Messages of ``top``."""
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
TICKS_PER_MICROSECOND: Final = 10
"""A timetoken counts ten-millionths of a second."""
TIMETOKEN_DIGITS: Final = 17
"""Until the year 5138."""

Value = TypeVar("Value")


def channel_of(channel: str) -> str:
    """Return a channel.

    Raises:
        TypeError: it is no text.
        ValueError: it holds a lone surrogate, which UTF-8 cannot carry.
    """
    return _text("a channel", channel)


def channels_of(channels: Iterable[str]) -> list[str]:
    """Return channels.

    Raises:
        TypeError: they are one text, or one of them is no text.
    """
    return list(map(channel_of, _listed("channels", channels)))


def timetoken_of(message_timetoken: str | int) -> str:
    """Return a message timetoken as text.

    Raises:
        TypeError: it is something else than text or a whole number. A float has lost digits.
        ValueError: it has other characters than the digits 0 to 9.
    """
    is_bool = isinstance(message_timetoken, bool)
    if is_bool or not isinstance(message_timetoken, str | int):
        raise TypeError(f"a message timetoken is text or a whole number, not {message_timetoken!r}")
    digits = str(message_timetoken)
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError(f"a message timetoken has the digits 0 to 9 only, not {digits!r}")
    return digits


def timetokens_of(message_timetokens: Iterable[str | int]) -> list[str]:
    """Return message timetokens as text, each once.

    Raises:
        TypeError: they are one text, or one of them is no timetoken.
        ValueError: one of them is malformed.
    """
    listed = _listed("message timetokens", message_timetokens)
    return list(dict.fromkeys(map(timetoken_of, listed)))


def type_of(type: str) -> str:
    """Return a type.

    Raises:
        TypeError: it is no text.
        ValueError: it holds a lone surrogate.
    """
    return _text("a type", type)


def limit_of(limit: int) -> int:
    """Return how many are wanted.

    Raises:
        TypeError: it is no whole number.
        ValueError: it is below 1.
    """
    return _number("a limit", limit, least=1)


def query_of(
    channel: str,
    message_timetokens: Iterable[str | int],
    types: Iterable[str] | None,
    me: str | None,
    names: int,
) -> PageQuery:
    """Return what ``page`` asks.

    Raises:
        TypeError: an argument is of another type.
        ValueError: an argument is out of its bounds.
    """
    timetokens = timetokens_of(message_timetokens)
    if len(timetokens) > MOST_MESSAGES:
        raise ValueError(f"a page has {MOST_MESSAGES} messages at most, not {len(timetokens)}")
    wanted = None
    if types is not None:
        wanted = tuple(map(type_of, _listed("types", types)))
    return PageQuery(
        channel=channel_of(channel),
        timetokens=timetokens,
        types=wanted,
        me=None if me is None else _text("a user", me),
        names=_number("names", names, least=0, most=MOST_NAMES),
    )


def who_of(
    channel: str,
    message_timetoken: str | int,
    type: str,
    value: str,
    limit: int,
    after: str | None,
) -> WhoQuery:
    """Return what ``who`` asks.

    Raises:
        TypeError: an argument is of another type.
        ValueError: an argument is malformed, or out of its bounds.
    """
    return WhoQuery(
        channel=channel_of(channel),
        timetoken=timetoken_of(message_timetoken),
        type=type_of(type),
        value=_text("a value", value),
        limit=_number("a limit", limit, least=1, most=MOST_REACTORS),
        after=None if after is None else after_of(after),
    )


def top_of(
    channel: str,
    type: str | None,
    value: str | None,
    since: str | int | datetime | None,
    limit: int,
) -> TopQuery:
    """Return what ``top`` asks.

    Raises:
        TypeError: an argument is of another type.
        ValueError: an argument is malformed, or out of its bounds.
    """
    return TopQuery(
        channel=channel_of(channel),
        type=None if type is None else type_of(type),
        value=None if value is None else _text("a value", value),
        since=None if since is None else since_of(since),
        limit=_number("a limit", limit, least=1, most=MOST_TOP),
    )


def since_of(since: str | int | datetime) -> str:
    """Return a time as a timetoken.

    Raises:
        TypeError: it is no time.
        ValueError: it has no time zone, or no 17 digits: seconds are no timetoken.
    """
    if isinstance(since, str | int):
        return _whole_timetoken(timetoken_of(since))
    if not isinstance(since, datetime):
        raise TypeError(f"since is a timetoken or a datetime, not {since!r}")
    if since.tzinfo is None:
        raise ValueError(f"since needs a time zone: datetime.now(timezone.utc), not {since!r}")
    microseconds = (since - EPOCH) // timedelta(microseconds=1)
    return _whole_timetoken(str(microseconds * TICKS_PER_MICROSECOND))


def _whole_timetoken(digits: str) -> str:
    """Return a timetoken, which is no time of another unit."""
    if len(digits) != TIMETOKEN_DIGITS or not digits.isdigit():
        raise ValueError(f"since is a timetoken of {TIMETOKEN_DIGITS} digits, not {digits}")
    return digits


def after_of(after: str) -> Reactor:
    """Return after whom a page begins.

    Raises:
        TypeError: it is no text.
        ValueError: it is no ``after`` of a page.
    """
    reactor = read_after(_text("after", after))
    if reactor is None:
        raise ValueError(f"after is the `after` of another page, not {after!r}")
    return reactor


def followed_of(channels: Iterable[str] | None) -> list[str] | None:
    """Return the channels to follow, each once; None for every channel.

    Raises:
        TypeError: they are one text, or one of them is no text.
        ValueError: there is none, or one of them is a pattern.
    """
    if channels is None:
        return None
    followed = list(dict.fromkeys(channels_of(channels)))
    if not followed:
        raise ValueError("at least one channel is needed; None means every channel")
    for channel in followed:
        if channel.endswith(".*"):
            raise ValueError(f"changes follows channels, and no pattern like {channel!r}")
    return followed


def positions_of(
    since: Mapping[str, str] | None,
    followed: Sequence[str] | None,
) -> dict[str, str] | None:
    """Return channel → position; None for now.

    Raises:
        TypeError: it is no mapping of texts.
        ValueError: a position is none of ``Page``, ``Change`` or ``Reset``, or its channel is not
            followed.
    """
    if since is None:
        return None
    if not isinstance(since, Mapping):
        raise TypeError(f"since is channel → position, not {since!r}")
    others = [] if followed is None else sorted(since.keys() - set(followed))
    if others:
        raise ValueError(f"since has a position of {others[0]!r}, which is not followed")
    return {channel_of(channel): position_of(since[channel]) for channel in since}


def position_of(position: str) -> str:
    """Return a position.

    Raises:
        TypeError: it is no text.
        ValueError: it is none of ``Page``, ``Change`` or ``Reset``.
    """
    if not is_position(_text("a position", position)):
        raise ValueError(f"a position is like '1760000000123-0', not {position!r}")
    return position


def users_of(users: Iterable[str]) -> list[str]:
    """Return users.

    Raises:
        TypeError: they are one text, or one of them is no text.
    """
    return [_text("a user", user) for user in _listed("users", users)]


def _listed(what: str, values: Iterable[Value]) -> list[Value]:
    is_list = isinstance(values, Iterable) and not isinstance(values, str | bytes)
    if not is_list:
        raise TypeError(f"{what} are a list, not {values!r}")
    return list(values)


def _text(what: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what} is text, not {value!r}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} holds a lone surrogate: {value!r}") from None
    return value


def _number(
    what: str,
    value: object,
    *,
    least: int,
    most: int | None = None,
) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{what} is a whole number, not {value!r}")
    if value < least:
        raise ValueError(f"{what} is {least} or more, not {value!r}")
    if most is not None and value > most:
        raise ValueError(f"{what} is {most} at most, not {value!r}")
    return value
