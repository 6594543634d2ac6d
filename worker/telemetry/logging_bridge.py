"""Entries of libraries and of the interpreter, in the form of the worker's own.

The text of a library may hold a URL with its token, or an event.
So an entry names the library, the line that logged, and the template.
A programmer wrote the template. What fills it is left out.
"""

import asyncio
import logging
import math
import sys
import traceback
import warnings
from collections.abc import Awaitable
from pathlib import PurePath
from typing import Any, Final, TypeVar

import structlog

from worker import open_files
from worker.errors import TransientError
from worker.telemetry.throttled_warning import REPEAT_SECONDS

Result = TypeVar("Result")

PACKAGE: Final = __name__.partition(".")[0]
NO_FILES: Final = f"{open_files.WORDS}. {open_files.ADVICE}"
PYTHONS_SHOWWARNING: Final = warnings.showwarning

log = structlog.get_logger(__name__)


def listen() -> None:
    """Take over what would be raw lines on standard error. An earlier handler is kept."""
    if not logging.getLogger().handlers:
        logging.getLogger().addHandler(Bridge())

    if warnings.showwarning is PYTHONS_SHOWWARNING:
        warnings.showwarning = _log_warning

    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _log_unraisable


class Bridge(logging.Handler):
    """Writes what a library logs as an entry of the worker."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one entry."""
        # A text without arguments may be a template that is filled in already.
        is_template = record.args and isinstance(record.msg, str)
        log.log(
            record.levelno,
            "library_speaks",
            library=record.name,
            at=_place(record.pathname, record.lineno),
            **({"template": record.msg} if is_template else {}),
            exc_info=record.exc_info,
        )


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


async def raising_unhandled_errors(work: Awaitable[Result]) -> Result:
    """Return the result of the work, unless the worker's own code fails beside it.

    Callbacks and tasks that no code awaits run beside it.
    An error of a library there is an entry in the log.

    Raises:
        Exception: of the work, or of the worker's own code beside it.
            Otherwise half of the worker would go on.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task  # noqa: S101 - for mypy: a coroutine is awaited in a task
    unhandled: list[Exception] = []
    warned_at = -math.inf

    def handle(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        nonlocal warned_at
        error = context.get("exception")
        if open_files.is_without_files(error):
            # asyncio reports it a hundred times a second.
            if loop.time() - warned_at >= REPEAT_SECONDS:
                warned_at = loop.time()
                log.warning("no_file_left", reason=NO_FILES)
            return
        if isinstance(error, Exception) and _is_of_the_worker(error):
            unhandled.append(error)
            # Garbage may be collected in any thread, and a task with it.
            loop.call_soon_threadsafe(task.cancel)
            return
        # With an error, asyncio's message quotes the arguments of what failed.
        template = {} if error else {"template": context.get("message")}
        log.error("library_speaks", library="asyncio", **template, exc_info=error)

    loop.set_exception_handler(handle)
    try:
        return await work
    except asyncio.CancelledError:
        if unhandled:
            task.uncancel()
            raise unhandled[0] from None
        raise
    finally:
        loop.set_exception_handler(None)


def _is_of_the_worker(error: Exception) -> bool:
    """Tell whether the worker's code is on the traceback of an error that will not pass."""
    if isinstance(error, (TransientError, OSError)):
        return False
    return any(
        frame.f_globals.get("__name__", "").partition(".")[0] == PACKAGE
        for frame, _ in traceback.walk_tb(error.__traceback__)
    )
