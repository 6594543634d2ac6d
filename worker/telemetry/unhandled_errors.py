"""Errors of callbacks and of tasks that nobody awaits.

An error of the worker's own code ends the work. An error of a library is an entry in the log.
"""

import asyncio
import traceback
from collections.abc import Awaitable
from typing import Any, Final, TypeVar

import structlog

from worker.errors import TransientError

Result = TypeVar("Result")

PACKAGE: Final = __name__.partition(".")[0]

log = structlog.get_logger(__name__)


async def raising_unhandled_errors(work: Awaitable[Result]) -> Result:
    """Return the result of the work, unless the worker's own code fails beside it.

    Raises:
        Exception: of the work, or of a callback beside it.
            Otherwise half of the worker would go on.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task  # noqa: S101 - for mypy: a coroutine is awaited in a task
    unhandled: list[Exception] = []

    def handle(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, Exception) and _is_of_the_worker(error):
            unhandled.append(error)
            # Garbage may be collected in any thread, and a task with it.
            loop.call_soon_threadsafe(task.cancel)
        else:
            _log_context(context)

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


def _log_context(context: dict[str, Any]) -> None:
    error = context.get("exception")
    # With an error, asyncio's message quotes the arguments of what failed.
    template = {} if error else {"template": context.get("message")}
    log.error("library_speaks", library="asyncio", **template, exc_info=error)


def _is_of_the_worker(error: Exception) -> bool:
    """Tell whether the worker's code is on the traceback of an error that will not pass."""
    if isinstance(error, (TransientError, OSError)):
        return False
    return any(
        frame.f_globals.get("__name__", "").partition(".")[0] == PACKAGE
        for frame, _ in traceback.walk_tb(error.__traceback__)
    )
