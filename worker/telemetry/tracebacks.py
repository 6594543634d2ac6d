"""A traceback for the log: where it broke, and what kind of error; never what a stranger wrote.

An error's own words may quote what it stumbled over: a key, a value, a whole command to Redis. They are told only of
errors whose words are ours, or speak of the program.
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
MAX_CHARACTERS: Final = 500
"""Of one line."""

_OF_THE_PROGRAM: Final = (
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


def told(exc_info: ExcInfo) -> str:
    """Return the traceback of an error, and of what caused it; bounded, without a stranger's words."""
    return "\n".join(islice(_lines(exc_info[1]), MAX_ERRORS * (2 * MAX_FRAMES + 3)))


def words(error: BaseException) -> str:
    """Return the kind of an error; its words, too, where they are of the program."""
    kind = type(error)
    name = (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )
    if not isinstance(error, TallyError) and not _is_of_the_program(kind):
        return name
    try:
        said = str(error)
    except Exception:
        return name
    return f"{name}: {said}" if said else name


def _is_of_the_program(kind: type[BaseException]) -> bool:
    # A library's own kind of OSError or RuntimeError quotes what it likes: aiohttp's of a timeout has the whole URL.
    return (
        issubclass(kind, _OF_THE_PROGRAM)
        and kind.__module__.partition(".")[0] in sys.stdlib_module_names
    )


def _lines(error: BaseException) -> Iterator[str]:
    waiting: list[tuple[str, BaseException]] = [("Traceback (most recent call last):", error)]
    seen: set[int] = set()
    while waiting and len(seen) < MAX_ERRORS:
        head, error = waiting.pop(0)
        if id(error) in seen:
            continue
        seen.add(id(error))
        yield head
        frames = traceback.extract_tb(error.__traceback__, limit=-MAX_FRAMES)
        yield from (line for frame in frames.format() for line in _bounded(frame).splitlines())
        yield _bounded(words(error))
        waiting += _behind(error)


def _behind(error: BaseException) -> Iterator[tuple[str, BaseException]]:
    """Yield what an error holds, and what it came from."""
    if isinstance(error, BaseExceptionGroup):
        yield from (("It holds:", each) for each in error.exceptions)
    if error.__cause__:
        yield "It was caused by:", error.__cause__
    elif error.__context__ and not error.__suppress_context__:
        yield "It came while this was dealt with:", error.__context__


def _bounded(text: str) -> str:
    return text[:MAX_CHARACTERS]
