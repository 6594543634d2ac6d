"""Errors nobody awaits, of a task that was let go of or a callback: ours end the whole, as any other of ours does."""

import asyncio
import traceback
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import structlog

from worker.errors import TransientError

Result = TypeVar("Result")

OURS: Final = __name__.partition(".")[0]

log = structlog.get_logger(__name__)


async def undivided(work: Coroutine[Any, Any, Result]) -> Result:
    """Return what the work returns, if every callback beside it goes well.

    Raises:
        Exception: the work's own, or one of ours that nobody would have heard of: half would go on in silence.
    """
    loop, me = asyncio.get_running_loop(), asyncio.current_task()
    assert me  # noqa: S101 - for mypy: a coroutine is awaited in a task
    strays: list[Exception] = []

    def hear(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, Exception) and _is_ours(error):
            strays.append(error)
            loop.call_soon_threadsafe(me.cancel)  # garbage may be collected in any thread
        else:
            # What asyncio says of an error quotes the arguments of what failed.
            words = {} if error else {"template": context.get("message")}
            log.error("library_speaks", library="asyncio", **words, exc_info=error)

    loop.set_exception_handler(hear)
    try:
        return await work
    except asyncio.CancelledError:
        if strays:
            me.uncancel()
            raise strays[0] from None
        raise
    finally:
        loop.set_exception_handler(None)


def _is_ours(error: Exception) -> bool:
    """Tell whether our code was on the way to it, and it is no failure that comes and goes."""
    if isinstance(error, (TransientError, OSError)):
        return False
    modules = (
        frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)
    )
    return any(module.partition(".")[0] == OURS for module in modules)
