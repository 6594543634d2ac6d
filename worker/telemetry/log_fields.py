"""The fields of an entry, made fit to be written: bounded, printable, and plain enough for JSON.

Anyone can choose the name of a channel.
A long name or ten thousand names make no long line.
"""

import math
from collections.abc import Collection, Mapping, MutableMapping, Set, Sized
from itertools import islice
from typing import Any, Final

from worker.telemetry.text import escape
from worker.telemetry.tracebacks import describe_error

MAX_CHARACTERS: Final = 500
MAX_ITEMS: Final = 20
MAX_ITEM_CHARACTERS: Final = 100
MAX_DEPTH: Final = 3

Fields = MutableMapping[str, Any]
"""The fields of an entry, as structlog hands them on."""


def make_printable(_logger: object, _method: str, fields: Fields) -> Fields:
    """Bound each field, and write each character a terminal would obey as an escape."""
    for name, value in fields.items():
        is_traceback = name == "exception"
        fields[name] = _escape_lines(str(value)) if is_traceback else _plain(value)
    return fields


def _escape_lines(traceback: str) -> str:
    """Keep the lines of a traceback. The worker wrote them, and their number is bounded."""
    lines = traceback.split("\n")
    return "\n".join(map(escape, lines))


def _plain(value: object, limit: int = MAX_CHARACTERS, depth: int = MAX_DEPTH) -> object:
    """Return a value as JSON knows it; text is cut at ``limit`` characters."""
    match value:
        case None | bool():
            return value
        case int() if value.bit_length() <= 64:
            return int(value)
        case float() if math.isfinite(value):
            return float(value)
        case Mapping() if depth:
            return _plain_mapping(value, depth)
        case list() | tuple() | Set() if depth:
            return _plain_list(value, depth)
        case _:
            return _bounded(_text_of(value), limit)


def _plain_mapping(mapping: Mapping[Any, object], depth: int) -> dict[str, object]:
    plain = {
        _bounded(str(key), MAX_ITEM_CHARACTERS): _plain_item(value, depth)
        for key, value in islice(mapping.items(), MAX_ITEMS)
    }

    if len(mapping) > MAX_ITEMS:
        plain["…"] = _left_out(mapping)
    return plain


def _plain_list(items: Collection[object], depth: int) -> list[object]:
    plain = [_plain_item(item, depth) for item in islice(items, MAX_ITEMS)]

    if len(items) > MAX_ITEMS:
        plain.append(f"… {_left_out(items)}")
    return plain


def _plain_item(value: object, depth: int) -> object:
    return _plain(value, MAX_ITEM_CHARACTERS, depth - 1)


def _left_out(items: Sized) -> str:
    return f"{len(items) - MAX_ITEMS} more"


def _text_of(value: object) -> str:
    if isinstance(value, BaseException):
        return describe_error(value)

    try:
        return str(value)
    except Exception:  # the other fields of the entry are written all the same
        return f"something of type {type(value).__name__}"


def _bounded(text: str, limit: int) -> str:
    if len(text) > limit:
        text = f"{text[:limit]}… ({len(text)} characters)"
    return escape(text)
