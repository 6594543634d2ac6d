"""What people write on a command line, as the worker needs it."""

import re
import time
from datetime import UTC, datetime
from typing import Final

from worker.domain.duration import parse_duration
from worker.domain.position import Range, Timetoken, from_seconds, is_after
from worker.errors import ConfigurationError

_LONG_NUMBER: Final = re.compile(r"[0-9]{8,}(?:\.[0-9]*)?")
"""It is a date without hyphens, or a slip."""


def range_between(since: str | None, until: str | None) -> Range:
    """Return the range of actions between two moments; None is an open end.

    Raises:
        ConfigurationError: one of them is no moment, or the range is empty.
    """
    begin = moment(since, "--since")
    end = moment(until, "--until")
    if begin and end and not is_after(end, begin):
        raise ConfigurationError(
            f"--since {since} is not before --until {until}: there is nothing between them."
        )
    return Range(begin, end)


def moment(text: str | None, option: str) -> Timetoken | None:
    """Return the timetoken of ``17600000001728660``, ``2026-01-31T12:00``, ``90`` or ``1h30m``.

    A date is in UTC if it names no zone. ``20260131`` is a date, and no age in seconds.

    Raises:
        ConfigurationError: it is none of these.
    """
    if text is None or re.fullmatch(r"[1-9][0-9]{16}", text, re.ASCII):
        return text

    age = _age(text)
    if age is not None:
        return from_seconds(time.time() - age)

    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(
            f"{option} is {text!r}; give a timetoken of 17 digits, "
            "a date such as 2026-01-31T12:00, or an age like 90 (seconds), 7d or 1h30m."
        ) from None

    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return from_seconds(date.timestamp())


def _age(text: str) -> float | None:
    """Return the seconds of an age; a number may have seven digits."""
    if _LONG_NUMBER.fullmatch(text):
        return None
    try:
        return parse_duration(text)
    except ValueError:
        return None


def check_message_timetoken(text: str) -> None:
    """Check that a text may be the timetoken of a message.

    Raises:
        ConfigurationError: it has other characters than digits, or too many.
    """
    if not re.fullmatch(r"[0-9]{1,20}", text, re.ASCII):
        raise ConfigurationError(f"MESSAGE_TIMETOKEN is {text!r}; it has only digits.")


def check_text(text: str | None, option: str) -> None:
    """Check that a text is Unicode: a shell may pass any bytes.

    Raises:
        ConfigurationError: it is not.
    """
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        raise ConfigurationError(f"{option} is no text in UTF-8.") from None
