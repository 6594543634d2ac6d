"""The work of a command in an event loop, and Ctrl-C meanwhile."""

import gc
import os
import signal
import threading
from collections.abc import Awaitable
from types import FrameType
from typing import TYPE_CHECKING, TypeVar

import typer

if TYPE_CHECKING:
    import asyncio

Result = TypeVar("Result")


def finish(work: Awaitable[Result]) -> Result:
    """Run the work of a command, and return its result.

    The task itself has no result.
    Up to Python 3.12 ``asyncio.run`` ends with ``signal.signal``.
    That builds the repr of the task and of its result.
    For a message with 25,000 reactions it took 40 seconds.

    Raises:
        typer.Exit: 130, after an interrupt, whatever the work ended with.
    """
    import asyncio  # noqa: PLC0415 - a quarter of the time that ``--help`` takes

    if not gc.isenabled():  # since ``worker.__main__`` began to load modules; they stay
        gc.freeze()
        gc.enable()

    results: list[Result] = []
    interrupts = Interrupts()

    async def keep_result() -> None:
        interrupts.watch(asyncio.current_task())
        results.append(await work)

    try:
        asyncio.run(keep_result())
    except BaseException:  # interrupted work may end with any error
        if not interrupts.count:
            raise
    finally:
        interrupts.unwatch()

    if interrupts.count:
        raise typer.Exit(128 + signal.SIGINT)
    return results[0]


class Interrupts:
    """The interrupts of a task.

    The first cancels the work, the second its cleanup, the third ends the process.

    An interrupt counts even if the task swallows its cancellation.
    ``asyncio.run`` alone would take what such a task returns for a result.
    """

    def __init__(self) -> None:
        self.count = 0
        self._task: asyncio.Task[object] | None = None
        self._previous = signal.getsignal(signal.SIGINT)
        is_main_thread = threading.current_thread() is threading.main_thread()
        self._is_handled = is_main_thread and self._previous is not signal.SIG_IGN

    def watch(self, task: "asyncio.Task[object] | None") -> None:
        """Cancel this task at an interrupt from now on."""
        self._task = task
        if self._is_handled:
            signal.signal(signal.SIGINT, self._handle)

    def unwatch(self) -> None:
        """Give interrupts back to their previous handler."""
        if self._is_handled:
            signal.signal(signal.SIGINT, self._previous)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.count += 1
        task = self._task
        if task is None or task.done() or self.count > 2:
            os._exit(128 + number)  # everything is closed, or never will be

        if self.count > 1:
            raise KeyboardInterrupt

        # Between two callbacks: in the middle of one, a future that it is about to complete
        # would be cancelled under its hands.
        task.get_loop().call_soon_threadsafe(task.cancel)
