"""What runs for long: how it starts, how it stops, and what a signal does."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import structlog

from worker.errors import ExitCode, first_of
from worker.following import Following
from worker.telemetry.strays import undivided

log = structlog.get_logger(__name__)


class Service:
    """What runs for long: subscriptions, which are drained at the end, and what runs beside them, which is cut off."""

    def __init__(
        self,
        following: Following,
        beside: Sequence[Callable[[], Coroutine[Any, Any, None]]],
        drain_seconds: float,
    ) -> None:
        self._following = following
        self._beside = beside
        self._drain_seconds = drain_seconds
        self.hang_up: Callable[[], None] = self.stop
        """What SIGHUP does."""
        self._asked = asyncio.Event()

    async def run(self) -> ExitCode:
        """Run until a signal asks to stop. A task that dies takes the service down with its error."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        loop.add_signal_handler(signal.SIGHUP, self.hang_up)
        return await undivided(self.serve())

    async def serve(self) -> ExitCode:
        """Run until ``stop``."""
        try:
            async with asyncio.TaskGroup() as group:
                following = group.create_task(self._following.run())
                beside = [group.create_task(run()) for run in self._beside]
                await self._asked.wait()
                for task in beside:
                    task.cancel()
                return await self._drain(following)
        except ExceptionGroup as errors:
            raise first_of(errors) from None

    def stop(self) -> None:
        """Ask to stop."""
        self._asked.set()

    async def _drain(self, following: asyncio.Task[None]) -> ExitCode:
        """Stop polling; apply what was polled; save the cursors."""
        self._following.stop()
        await asyncio.wait([following], timeout=self._drain_seconds)
        if following.done():
            return ExitCode.DONE
        log.error("drain_timed_out", subscriptions=len(self._following.subscriptions), seconds=self._drain_seconds)
        following.cancel()
        return ExitCode.FAILED

    def _on_signal(self, number: signal.Signals) -> None:
        """The first signal asks; the second kills. Nothing is lost by that: the cursor waits for what was applied."""
        if self._asked.is_set():
            os._exit(128 + number)
        log.info("stop_asked", signal=number.name)
        self._asked.set()
