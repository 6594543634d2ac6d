"""The work of a command in an event loop, and the signals that end it early."""

import gc
import os
import signal
import threading
from collections.abc import Awaitable
from types import FrameType
from typing import TYPE_CHECKING, Final, TypeVar

import typer

if TYPE_CHECKING:
    import asyncio

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Result = TypeVar("Result")


def finish(work: Awaitable[Result]) -> Result:
    """Run the work of a command, and return its result.

    The task itself has no result.
    Up to Python 3.12 ``asyncio.run`` ends with ``signal.signal``.
    That builds the repr of the task and of its result.
    For a message with 25,000 reactions it took 40 seconds.

    Raises:
        typer.Exit: 128 + the signal's number, whatever the work ended with.
    """
    import asyncio  # noqa: PLC0415 - a quarter of the time that ``--help`` takes

    from worker.cli.event_loop import CommandLoop  # noqa: PLC0415 - it needs asyncio

    if not gc.isenabled():  # since ``worker.__main__`` began to load modules; they stay
        gc.freeze()
        gc.enable()

    results: list[Result] = []
    interrupts = Interrupts()

    async def keep_result() -> None:
        interrupts.watch(asyncio.current_task())
        results.append(await work)

    try:
        with asyncio.Runner(loop_factory=CommandLoop) as runner:
            runner.run(keep_result())
    except BaseException:  # interrupted work may end with any error
        if not interrupts.number:
            raise
    finally:
        interrupts.unwatch()

    if interrupts.number:
        raise typer.Exit(128 + interrupts.number)
    return results[0]


class Interrupts:
    """The interrupts of a task: Ctrl-C, SIGTERM, a terminal that is closed.

    The first cancels the work, which closes what it has opened.
    The second cancels the cleanup, the third ends the process.

    A signal counts even if the task swallows its cancellation.
    ``asyncio.run`` alone would take what it returns for a result.
    """

    def __init__(self) -> None:
        self.number = 0
        """The newest signal; 0 before the first one."""
        self._count = 0
        self._task: asyncio.Task[object] | None = None
        is_main_thread = threading.current_thread() is threading.main_thread()
        previous = {number: signal.getsignal(number) for number in SIGNALS if is_main_thread}
        self._previous = {
            number: handler
            for number, handler in previous.items()
            if handler is not signal.SIG_IGN  # nohup, or a shell's background
        }

    def watch(self, task: "asyncio.Task[object] | None") -> None:
        """Cancel this task at a signal from now on."""
        self._task = task
        for number in self._previous:
            signal.signal(number, self._handle)

    def unwatch(self) -> None:
        """Give the signals back to their previous handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP and self._count:
            return  # a terminal that closes sends it twice
        self.number = number
        self._count += 1
        task = self._task
        if task is None or task.done() or self._count > 2:
            os._exit(128 + number)  # everything is closed, or never will be

        if self._count > 1:
            raise KeyboardInterrupt

        # Between two callbacks: in the middle of one, a future that it is about to complete
        # would be cancelled under its hands.
        task.get_loop().call_soon_threadsafe(task.cancel)
