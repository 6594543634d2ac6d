"""Arguments of readers, checked."""

from collections.abc import Sequence

from reaction_tally.rows import Query


def timetoken_of(message_timetoken: str | int) -> str:
    """Return a message timetoken as text.

    Raises:
        TypeError: it is something else than text or a whole number. A float has lost digits.
    """
    is_bool = isinstance(message_timetoken, bool)
    if is_bool or not isinstance(message_timetoken, str | int):
        raise TypeError(f"a message timetoken is text or a whole number, not {message_timetoken!r}")
    return str(message_timetoken)


def timetokens_of(message_timetokens: Sequence[str | int]) -> list[str]:
    """Return message timetokens as text, each once.

    Raises:
        TypeError: they are one text, or one of them is no timetoken.
    """
    if isinstance(message_timetokens, str | bytes):
        raise TypeError("message timetokens are a list, not one text")
    return list(dict.fromkeys(map(timetoken_of, message_timetokens)))


def limit_of(limit: int) -> int:
    """Return how many are wanted.

    Raises:
        ValueError: it is below 1.
    """
    if limit < 1:
        raise ValueError(f"a limit is 1 or more, not {limit!r}")
    return limit


def query_of(
    channel: str,
    message_timetokens: Sequence[str | int],
    types: Sequence[str] | None,
    me: str | None,
    names: int,
) -> Query:
    """Return what ``page`` asks.

    Raises:
        TypeError: an argument is of another type.
    """
    if isinstance(types, str):
        raise TypeError("types are a list, not one text")
    return Query(
        channel=channel,
        timetokens=timetokens_of(message_timetokens),
        types=types,
        me=me,
        names=names,
    )
