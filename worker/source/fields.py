"""The fields of a payload, checked. Each reader names the field in its error."""

import json
import re
from collections.abc import Mapping
from typing import Final

from worker.domain.position import Timetoken
from worker.errors import MalformedError

MAX_BYTES: Final = 32_768
"""PubNub's limit for a request, so for each type, value and uuid in it."""
MAX_DIGITS: Final = 20
ACTION_TIMETOKEN: Final = re.compile(rf"[1-9][0-9]{{0,{MAX_DIGITS - 1}}}", re.ASCII)
MESSAGE_TIMETOKEN: Final = re.compile(rf"[0-9]{{1,{MAX_DIGITS}}}", re.ASCII)
"""PubNub does not check the timetoken of a message."""
_SHOWN: Final = 4_096


def read_object(payload: Mapping[str, object], key: str) -> Mapping[str, object]:
    """Return a field that must be an object.

    Raises:
        MalformedError: It is not.
    """
    value = payload.get(key)
    if not isinstance(value, dict):
        raise MalformedError(f"{key} {_kind(value)} where an object belongs")
    return value


def read_text(key: str, value: object) -> str:
    """Return a value that must be text of bounded size, in UTF-8.

    Raises:
        MalformedError: It is not.
    """
    if not isinstance(value, str):
        raise MalformedError(f"{key} {_kind(value)} where text belongs")
    try:
        size = len(value) if value.isascii() else len(value.encode())
    except UnicodeEncodeError:
        raise MalformedError(f"{key} holds a lone surrogate, which UTF-8 cannot carry") from None
    if size > MAX_BYTES:
        raise MalformedError(f"{key} has {size} bytes; PubNub accepts no more than {MAX_BYTES}")
    return value


def read_timetoken(
    payload: Mapping[str, object],
    key: str,
    form: re.Pattern[str],
) -> Timetoken:
    """Return a field that must be a timetoken, as text.

    Raises:
        MalformedError: It is not.
    """
    value = payload.get(key)
    digits = value if isinstance(value, str) else _digits(key, value)
    if not form.fullmatch(digits):
        raise MalformedError(f"{key} is {digits[:40]!r}, not a timetoken")
    return digits


def _digits(key: str, value: object) -> str:
    """Return the digits of an integer. A float has lost some of them."""
    if type(value) is not int:
        raise MalformedError(f"{key} {_kind(value)} where a timetoken belongs")
    return str(value)


def as_json(payload: object) -> str:
    """Return a payload as ASCII JSON, cut to a readable length."""
    try:
        return json.dumps(payload, ensure_ascii=True)[:_SHOWN]
    except RecursionError:  # JSON can be read that is too deep to be written
        return '"nested too deeply to show"'


def _kind(value: object) -> str:
    if value is None:
        return "is missing"
    return f"is of type {type(value).__name__}"
