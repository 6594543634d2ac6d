"""Waiting for a promise: as long as a busy machine may need, and no longer than it takes."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Final

WAIT_SECONDS: Final = 90.0
"""How long a test waits at most: far longer than anything takes, also on a busy machine."""
LOOK_SECONDS: Final = 0.01

Condition = Callable[[], object | Awaitable[object]]
"""Answers true or false; it may be a coroutine function."""


async def wait_until(
    condition: Condition,
    seconds: float = WAIT_SECONDS,
    *,
    what: Callable[[], object] | None = None,
) -> None:
    """Return as soon as the condition holds.

    Raises:
        AssertionError: it did not hold in time; ``what`` tells more, such as a worker's log.
    """
    deadline = time.monotonic() + seconds
    while not await _holds(condition):
        if time.monotonic() > deadline:
            details = what() if what else ""
            raise AssertionError(f"The condition did not hold within {seconds:g} s. {details}")
        await asyncio.sleep(LOOK_SECONDS)


async def _holds(condition: Condition) -> bool:
    answer = condition()
    if inspect.isawaitable(answer):
        answer = await answer
    return bool(answer)
