"""One entry for one unit of work, a stable event name, facts as fields; never a secret, never a payload."""

import logging
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Set, Sized
from contextlib import suppress
from enum import StrEnum
from itertools import islice
from typing import Any, Final

MAX_CHARACTERS: Final = 500
MAX_ITEMS: Final = 20
MAX_ITEM_CHARACTERS: Final = 100
MAX_DEPTH: Final = 3
"""How much of a field is written: neither a long name nor ten thousand of them make a long line."""

# C0, DEL and C1; line and paragraph separators; whatever turns the direction of text, or is not seen; lone surrogates.
_UNPRINTABLE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
_QUOTE: Final = re.compile("['\"`]")


class LogFormat(StrEnum):
    """How entries are written."""

    AUTO = "auto"
    JSON = "json"
    CONSOLE = "console"


def configure(format: LogFormat = LogFormat.AUTO, level: str = "info") -> None:
    """Write entries of that level and above to standard error: JSON, or readable where a person looks on.

    What libraries and the interpreter would write there goes the same way.
    """
    import structlog  # noqa: PLC0415 - it brings rich along; who only wants `escape` waits for neither

    from worker.telemetry import logging_bridge, tracebacks  # noqa: PLC0415 - as above

    is_console = format is LogFormat.CONSOLE or (format is LogFormat.AUTO and sys.stderr.isatty())
    renderer: Any = (
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            exception_formatter=structlog.dev.plain_traceback,
            sort_keys=False,
        )
        if is_console
        else structlog.processors.JSONRenderer(ensure_ascii=True)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.ExceptionRenderer(tracebacks.told),
            printable,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=Lines,
        cache_logger_on_first_use=False,
    )
    logging_bridge.listen()


def command_dies() -> None:
    """Log the error that is being dealt with, whether or not a command has come to configuring its logs."""
    import structlog  # noqa: PLC0415 - as in `configure`

    if not structlog.is_configured():
        configure()
    structlog.get_logger(__name__).exception("command_dies")


class Lines:
    """Standard error, a line at a time. One that cannot be written (a full disk) is no reason to stop counting."""

    def __init__(self, *_: object) -> None: ...

    def msg(self, line: str) -> None:
        """Write a line."""
        with suppress(OSError):
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    log = debug = info = warn = warning = error = err = critical = fatal = exception = failure = msg


def printable(
    _logger: object, _method: str, entry: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Write what a terminal would obey as escapes, and of what is long a part: anyone can choose a channel name."""
    for key, value in entry.items():
        # A traceback keeps its lines, which are ours and not many; what stands in them need not be ours.
        is_traceback = key == "exception" and isinstance(value, str)
        entry[key] = "\n".join(map(escape, value.split("\n"))) if is_traceback else _told(value)
    return entry


def escape(text: str) -> str:
    """Return the text with every character a terminal would obey written as an escape."""
    return _UNPRINTABLE.sub(
        lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), text
    )


def unquoted(sentence: str) -> str:
    """Return a sentence up to where it quotes what a stranger wrote."""
    ours, *theirs = _QUOTE.split(sentence, maxsplit=1)
    return f"{ours}…" if theirs else ours


def _told(value: object, limit: int = MAX_CHARACTERS, depth: int = MAX_DEPTH) -> Any:
    told: Any
    match value:
        case None | bool():
            told = value
        case int() if value.bit_length() <= 64:
            told = int(value)
        case float() if math.isfinite(value):
            told = float(value)
        case Mapping() if depth:
            told = {
                _bounded(str(key), MAX_ITEM_CHARACTERS): _item(each, depth)
                for key, each in _some(value.items())
            }
            told |= {"…": _left_out(value)} if len(value) > MAX_ITEMS else {}
        case list() | tuple() | Set() if depth:
            told = [_item(each, depth) for each in _some(value)]
            told += [f"… {_left_out(value)}"] if len(value) > MAX_ITEMS else []
        case _:
            told = _bounded(_shown(value), limit)
    return told


def _item(value: object, depth: int) -> Any:
    return _told(value, MAX_ITEM_CHARACTERS, depth - 1)


def _left_out(items: Sized) -> str:
    return f"{len(items) - MAX_ITEMS} more"


def _some(items: Iterable[Any]) -> Iterator[Any]:
    return islice(items, MAX_ITEMS)


def _shown(value: object) -> str:
    from worker.telemetry.tracebacks import words  # noqa: PLC0415 - as in `configure`

    if isinstance(value, BaseException):
        return words(value)
    try:
        return str(value)
    except Exception:  # an entry that cannot tell one fact had better tell the others
        return f"something of type {type(value).__name__}"


def _bounded(text: str, limit: int) -> str:
    if len(text) > limit:
        text = f"{text[:limit]}… ({len(text)} characters)"
    return escape(text)
