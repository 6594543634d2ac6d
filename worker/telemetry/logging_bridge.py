"""What others have to say (libraries, the interpreter) goes where our own entries go, in the same form.

Their words may hold what we never write, a URL with its token or an event: an entry says who spoke, where, and with
which template, which is a programmer's text; not what was filled into it.
"""

import logging
import sys
import warnings
from pathlib import PurePath
from typing import Any, Final

import structlog

log = structlog.get_logger(__name__)

_SHOWWARNING: Final = warnings.showwarning


class Bridge(logging.Handler):
    """Writes what a library logs as an entry of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one entry."""
        # Without arguments to fill in, the text may have been filled in already.
        template = {"template": record.msg} if record.args and isinstance(record.msg, str) else {}
        log.log(
            record.levelno,
            "library_speaks",
            library=record.name,
            at=_place(record.pathname, record.lineno),
            **template,
            exc_info=record.exc_info,
        )


def listen() -> None:
    """Take over what would be written to standard error in raw lines; whoever has taken it over before, keeps it."""
    if not logging.getLogger().handlers:
        logging.getLogger().addHandler(Bridge())
    if warnings.showwarning is _SHOWWARNING:
        warnings.showwarning = _warned
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _unraisable


def _warned(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any
) -> None:
    log.warning("warned", kind=category.__name__, at=_place(filename, lineno), words=str(message))


def _unraisable(unraisable: Any) -> None:
    where = getattr(unraisable.object, "__qualname__", type(unraisable.object).__name__)
    log.error("not_raised", where=where, exc_info=unraisable.exc_value)


def _place(path: str, line: int | None) -> str:
    return f"{'/'.join(PurePath(path).parts[-2:])}:{line}"
