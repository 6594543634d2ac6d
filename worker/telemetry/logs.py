"""The log: one entry for one unit of work, on standard error.

An entry has a stable event name, and facts as fields. It never holds a secret or a payload.
"""

import logging
import sys
from contextlib import suppress

import structlog
from structlog.typing import Processor

from worker.telemetry import logging_bridge
from worker.telemetry.log_fields import format_traceback, make_printable


def configure(format: str = "auto", level: str = "info", *, is_quiet: bool = False) -> None:
    """Write entries of this level and above to standard error, as ``json`` or for a ``console``.

    A quiet command writes only errors, except at level debug.
    Entries of libraries and of the interpreter go the same way.
    """
    if is_quiet and level != "debug":
        level = "error"
    lowest = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.ExceptionRenderer(format_traceback),
            make_printable,
            _renderer(format),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(lowest),
        logger_factory=StandardError,
        cache_logger_on_first_use=False,
    )
    logging_bridge.listen()


def log_crash() -> None:
    """Log the error that is being handled, also if the command has not configured its log yet."""
    if not structlog.is_configured():
        configure()
    structlog.get_logger(__name__).exception("command_dies")


class StandardError:
    """Writes entries, one a line.

    An entry that cannot be written, on a full disk for example, is lost. Counting goes on.
    """

    def __init__(self, *_: object) -> None: ...

    def msg(self, line: str) -> None:
        """Write a line."""
        with suppress(OSError):
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    log = debug = info = warn = warning = msg
    error = err = critical = fatal = exception = failure = msg


def _renderer(format: str) -> Processor:
    is_terminal = sys.stderr.isatty()
    if format == "json" or (format == "auto" and not is_terminal):
        return structlog.processors.JSONRenderer(ensure_ascii=True)

    return structlog.dev.ConsoleRenderer(
        colors=is_terminal, exception_formatter=structlog.dev.plain_traceback, sort_keys=False
    )
