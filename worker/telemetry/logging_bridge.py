"""Entries of libraries and of the interpreter, in the form of the worker's own.

The text of a library may hold a URL with its token, or an event.
So an entry names the library, the line that logged, and the template.
A programmer wrote the template. What fills it is left out.
"""

import logging
import sys
import warnings
from pathlib import PurePath
from typing import Any, Final

import structlog

log = structlog.get_logger(__name__)

PYTHONS_SHOWWARNING: Final = warnings.showwarning


class Bridge(logging.Handler):
    """Writes what a library logs as an entry of the worker."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one entry."""
        log.log(
            record.levelno,
            "library_speaks",
            library=record.name,
            at=_place(record.pathname, record.lineno),
            **_template(record),
            exc_info=record.exc_info,
        )


def listen() -> None:
    """Take over what would be raw lines on standard error. An earlier handler is kept."""
    if not logging.getLogger().handlers:
        logging.getLogger().addHandler(Bridge())

    if warnings.showwarning is PYTHONS_SHOWWARNING:
        warnings.showwarning = _log_warning

    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _log_unraisable


def _template(record: logging.LogRecord) -> dict[str, str]:
    """Return the template of a record.

    A text without arguments may be a template that is filled in already.
    """
    if record.args and isinstance(record.msg, str):
        return {"template": record.msg}

    return {}


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    *_: object,
    **__: object,
) -> None:
    log.warning("warned", kind=category.__name__, at=_place(filename, lineno), words=str(message))


def _log_unraisable(unraisable: Any) -> None:
    owner = unraisable.object
    where = getattr(owner, "__qualname__", type(owner).__name__)
    log.error("not_raised", where=where, exc_info=unraisable.exc_value)


def _place(path: str, line: int | None) -> str:
    """Return the folder, the file and the line, such as ``asyncio/events.py:84``."""
    folder_and_file = PurePath(path).parts[-2:]
    return f"{'/'.join(folder_and_file)}:{line}"
