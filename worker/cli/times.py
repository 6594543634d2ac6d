"""Times, as people and as programs read them."""

from datetime import UTC, datetime
from typing import Final

from worker.domain.position import Timetoken, milliseconds

PUBNUB_DIGITS: Final = 17
"""Digits of PubNub's own timetokens. Others are no time."""
UNITS: Final = (
    (86_400, "d"),
    (3_600, "h"),
    (60, "min"),
)


def iso(at: int | None) -> str | None:
    """Return milliseconds since 1970 as ``2026-01-31T12:00:00.123Z``; None for 0."""
    if not at:
        return None
    text = _utc(at).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def moment(at: int) -> str:
    """Return milliseconds since 1970 as ``2026-01-31 12:00:00 UTC``."""
    return _utc(at).strftime("%Y-%m-%d %H:%M:%S UTC")


def clock_time(at: int) -> str:
    """Return the time of day, in UTC, of milliseconds since 1970."""
    return _utc(at).strftime("%H:%M:%S")


def _utc(at: int) -> datetime:
    return datetime.fromtimestamp(at / 1000, UTC)


def ago(at: int | None, now: float, unknown: str = "never") -> str:
    """Return how long ago something was, as ``5 min ago``.

    ``at`` is in milliseconds since 1970, ``now`` in seconds. 0 and None are ``unknown``.
    """
    if not at:
        return unknown
    return f"{age(at, now)} ago"


def age(at: int, now: float) -> str:
    """Return a time that has passed, in its largest unit: ``5 min``."""
    seconds = max(0, int(now - at / 1000))
    for size, unit in UNITS:
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def time_of(timetoken: Timetoken | None) -> int:
    """Return the milliseconds since 1970 of a timetoken; 0 if it is no time."""
    digits = timetoken or ""
    if len(digits) != PUBNUB_DIGITS or not digits.isdecimal():
        return 0
    return milliseconds(digits)
