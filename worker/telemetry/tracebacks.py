"""A traceback for the log: where an error came from, and its kind.

An error's message may quote what it met: a key, a value, a whole command to Redis.
A message is written only if the worker wrote it, or if it speaks of the program.
"""

import sys
import traceback
from collections.abc import Iterator
from itertools import islice
from types import TracebackType
from typing import Final

from worker.errors import TallyError

MAX_FRAMES: Final = 20
MAX_ERRORS: Final = 8
MAX_LINES: Final = MAX_ERRORS * (2 * MAX_FRAMES + 3)
MAX_CHARACTERS: Final = 500
"""Of one line."""

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

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


def format_traceback(exc_info: ExcInfo) -> str:
    """Return the traceback of an error and of its causes, bounded."""
    return "\n".join(islice(_lines(exc_info[1]), MAX_LINES))


def describe_error(error: BaseException) -> str:
    """Return the kind of an error, and its message if that quotes nothing that others wrote."""
    kind = type(error)
    name = _name(kind)
    if not _is_message_safe(kind):
        return name

    message = _message(error)
    return f"{name}: {message}" if message else name


def _name(kind: type[BaseException]) -> str:
    if kind.__module__ == "builtins":
        return kind.__qualname__

    return f"{kind.__module__}.{kind.__qualname__}"


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return ""


def _is_message_safe(kind: type[BaseException]) -> bool:
    if issubclass(kind, TallyError):
        return True

    # A library's own kind of OSError may quote anything: aiohttp's of a timeout quotes the URL.
    package = kind.__module__.partition(".")[0]
    is_of_python = package in sys.stdlib_module_names
    return is_of_python and issubclass(kind, ERRORS_OF_THE_PROGRAM)


def _lines(error: BaseException) -> Iterator[str]:
    waiting = [("Traceback (most recent call last):", error)]
    written: set[int] = set()
    while waiting and len(written) < MAX_ERRORS:
        title, error = waiting.pop(0)
        if id(error) in written:
            continue
        written.add(id(error))
        yield title
        yield from _frames(error)
        yield _bounded(describe_error(error))
        waiting += _origins(error)


def _frames(error: BaseException) -> Iterator[str]:
    frames = traceback.extract_tb(error.__traceback__, limit=-MAX_FRAMES)
    for frame in frames.format():
        yield from _bounded(frame).splitlines()


def _origins(error: BaseException) -> Iterator[tuple[str, BaseException]]:
    """Yield the errors that an error holds or comes from, each with its title."""
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield "It holds:", member

    if error.__cause__:
        yield "It was caused by:", error.__cause__
    elif error.__context__ and not error.__suppress_context__:
        yield "It came while this was dealt with:", error.__context__


def _bounded(text: str) -> str:
    return text[:MAX_CHARACTERS]
