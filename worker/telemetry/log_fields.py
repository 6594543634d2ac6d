"""The fields of an entry, made fit to be written: bounded, printable, and plain enough for JSON.

Anyone can choose the name of a channel. A long name or ten thousand names make no long line.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Set, Sized
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
    """Bound each field, and write each character a terminal would obey as an escape.

    A traceback keeps its lines. The worker wrote them, and their number is bounded.
    """
    for name, value in fields.items():
        if name == "exception" and isinstance(value, str):
            fields[name] = "\n".join(map(escape, value.split("\n")))
        else:
            fields[name] = _plain(value)
    return fields


def _plain(value: object, limit: int = MAX_CHARACTERS, depth: int = MAX_DEPTH) -> Any:
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


def _plain_mapping(mapping: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    plain = {
        _bounded(str(key), MAX_ITEM_CHARACTERS): _plain_item(value, depth)
        for key, value in _first(mapping.items())
    }

    if len(mapping) > MAX_ITEMS:
        plain["…"] = _left_out(mapping)
    return plain


def _plain_list(items: Any, depth: int) -> list[Any]:
    plain = [_plain_item(item, depth) for item in _first(items)]

    if len(items) > MAX_ITEMS:
        plain.append(f"… {_left_out(items)}")
    return plain


def _plain_item(value: object, depth: int) -> Any:
    return _plain(value, MAX_ITEM_CHARACTERS, depth - 1)


def _first(items: Iterable[Any]) -> Iterator[Any]:
    return islice(items, MAX_ITEMS)


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
