"""The fields of an entry, made fit to be written: bounded, printable, and plain enough for JSON.

Anyone can choose the name of a channel.
A long name or ten thousand names make no long line.

An error's message may quote what it met: a key, a value, a whole command to Redis.
A message is written only if the worker wrote it, or if it speaks of the program.
"""

import math
import sys
import traceback
from collections.abc import Collection, Iterator, Mapping, MutableMapping, Set
from itertools import islice
from types import TracebackType
from typing import Any, Final

from worker.errors import TallyError
from worker.telemetry.text import escape

MAX_CHARACTERS: Final = 500
"""Of a field, or of a line of a traceback."""
MAX_ITEMS: Final = 20
MAX_ITEM_CHARACTERS: Final = 100
MAX_DEPTH: Final = 3
MAX_FRAMES: Final = 20
MAX_ERRORS: Final = 8
MAX_LINES: Final = MAX_ERRORS * (2 * MAX_FRAMES + 3)

ERRORS_OF_THE_PROGRAM: Final = (
    TypeError,
    AttributeError,
    NameError,
    ImportError,
    AssertionError,
    NotImplementedError,
    RecursionError,
    RuntimeError,
    OSError,
)

Fields = MutableMapping[str, Any]
"""The fields of an entry, as structlog hands them on."""
ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


def make_printable(_logger: object, _method: str, fields: Fields) -> Fields:
    """Bound each field, and write each character a terminal would obey as an escape."""
    for name, value in fields.items():
        if name == "exception":  # its lines stay: ``format_traceback`` wrote and bounded them
            fields[name] = "\n".join(map(escape, str(value).split("\n")))
        else:
            fields[name] = _plain(value)
    return fields


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
        _bounded(str(key), MAX_ITEM_CHARACTERS): _plain(value, MAX_ITEM_CHARACTERS, depth - 1)
        for key, value in islice(mapping.items(), MAX_ITEMS)
    }
    if len(mapping) > MAX_ITEMS:
        plain["…"] = f"{len(mapping) - MAX_ITEMS} more"
    return plain


def _plain_list(items: Collection[object], depth: int) -> list[object]:
    plain = [_plain(item, MAX_ITEM_CHARACTERS, depth - 1) for item in islice(items, MAX_ITEMS)]
    if len(items) > MAX_ITEMS:
        plain.append(f"… {len(items) - MAX_ITEMS} more")
    return plain


def _text_of(value: object) -> str:
    if isinstance(value, BaseException):
        return _describe(value)

    try:
        return str(value)
    except Exception:  # the other fields of the entry are written all the same
        return f"something of type {type(value).__name__}"


def _bounded(text: str, limit: int) -> str:
    if len(text) > limit:
        text = f"{text[:limit]}… ({len(text)} characters)"
    return escape(text)


def format_traceback(exc_info: ExcInfo) -> str:
    """Return the traceback of an error and of its causes, bounded."""
    return "\n".join(islice(_lines(exc_info[1]), MAX_LINES))


def _lines(error: BaseException) -> Iterator[str]:
    waiting = [("Traceback (most recent call last):", error)]
    written: set[int] = set()
    while waiting and len(written) < MAX_ERRORS:
        title, error = waiting.pop(0)
        if id(error) in written:
            continue
        written.add(id(error))
        yield title
        frames = traceback.extract_tb(error.__traceback__, limit=-MAX_FRAMES)
        for frame in frames.format():
            yield from frame[:MAX_CHARACTERS].splitlines()
        yield _describe(error)[:MAX_CHARACTERS]
        waiting += _origins(error)


def _origins(error: BaseException) -> Iterator[tuple[str, BaseException]]:
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield "It holds:", member

    if error.__cause__:
        yield "It was caused by:", error.__cause__
    elif error.__context__ and not error.__suppress_context__:
        yield "It came while this was dealt with:", error.__context__


def _describe(error: BaseException) -> str:
    """Return the kind of an error, and its message if that quotes nothing that others wrote."""
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ != "builtins":
        name = f"{kind.__module__}.{name}"
    if not _is_message_safe(kind):
        return name

    try:
        message = str(error)
    except Exception:
        message = ""
    return f"{name}: {message}" if message else name


def _is_message_safe(kind: type[BaseException]) -> bool:
    if issubclass(kind, TallyError):
        return True

    # A library's own kind of OSError may quote anything:
    # aiohttp's of a timeout quotes the URL.
    package = kind.__module__.partition(".")[0]
    return package in sys.stdlib_module_names and issubclass(kind, ERRORS_OF_THE_PROGRAM)
