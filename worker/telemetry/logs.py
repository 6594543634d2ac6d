"""One entry for one unit of work, a stable event name, facts as fields; never a secret, never a payload."""

import logging
import re
import sys
from collections.abc import MutableMapping
from enum import StrEnum
from typing import Any, Final

_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class LogFormat(StrEnum):
    """How entries are written."""

    AUTO = "auto"
    JSON = "json"
    CONSOLE = "console"


def configure(format: LogFormat = LogFormat.AUTO, level: str = "info") -> None:
    """Write entries of that level and above to standard error: JSON, or readable where a person looks on."""
    import structlog  # noqa: PLC0415 - it brings rich along; who only wants `escape` waits for neither

    is_console = format is LogFormat.CONSOLE or (format is LogFormat.AUTO and sys.stderr.isatty())
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if is_console
        else structlog.processors.JSONRenderer(ensure_ascii=True)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            printable,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def printable(_logger: object, _method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Write control characters as escapes: anyone can choose a channel name, and a terminal obeys them."""
    for key, value in entry.items():
        if isinstance(value, str):
            # A traceback keeps its lines, which are ours; what stands in them need not be.
            entry[key] = "\n".join(map(escape, value.split("\n"))) if key == "exception" else escape(value)
    return entry


def escape(text: str) -> str:
    """Return the text with every character a terminal would obey written as an escape."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), text)
