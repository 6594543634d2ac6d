"""What runs for long: how it starts, how it stops, and what a signal does."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import structlog

from worker.errors import ExitCode, first_of
from worker.live.subscriptions import Subscriptions
from worker.telemetry.unhandled_errors import raising_unhandled_errors

STOPS: Final = (signal.SIGTERM, signal.SIGINT)

Job = Callable[[], Coroutine[Any, Any, None]]
"""Runs beside the subscriptions until it is cancelled."""

log = structlog.get_logger(__name__)


class EarlySignals:
    """Signals while a worker starts: most would end it as if it had failed, and a container's first process is deaf."""

    def __init__(self) -> None:
        """Listen, in the task that starts."""
        self.has_stopped = False
        self._has_hung_up = False
        self._starting = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in STOPS:
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)

    def hand_over(self, service: "Service") -> None:
        """Leave what comes from now on to the service, and what it has to hear of what came."""
        loop = asyncio.get_running_loop()
        for number in STOPS:
            loop.add_signal_handler(number, service.stop)
        loop.add_signal_handler(signal.SIGHUP, service.hang_up)
        if self._has_hung_up:
            service.hang_up()
        if self.has_stopped:  # somebody swallowed that
            service.stop()

    def _stop(self, number: signal.Signals) -> None:
        log.info("stop_asked", signal=number.name)
        self.has_stopped = True
        if self._starting:
            self._starting.cancel()

    def _hang_up(self) -> None:
        self._has_hung_up = True


class Service:
    """What runs for long: subscriptions, which are drained at the end, and what runs beside them, which is cut off."""

    def __init__(
        self,
        subscriptions: Subscriptions,
        jobs: Sequence[Job],
        drain_seconds: float,
        hang_up: Callable[[], None] | None = None,
    ) -> None:
        """``hang_up`` is what SIGHUP does; without it, SIGHUP stops."""
        self._subscriptions = subscriptions
        self._jobs = jobs
        self._drain_seconds = drain_seconds
        self.hang_up = hang_up or self.stop
        self._asked = asyncio.Event()

    async def run(self) -> ExitCode:
        """Run until a signal asks to stop. A task that dies takes the service down with its error."""
        loop = asyncio.get_running_loop()
        for number in STOPS:
            loop.add_signal_handler(number, self._on_signal, number)
        loop.add_signal_handler(signal.SIGHUP, self.hang_up)
        return await raising_unhandled_errors(self.serve())

    async def serve(self) -> ExitCode:
        """Run until ``stop``."""
        try:
            async with asyncio.TaskGroup() as group:
                following = group.create_task(self._subscriptions.run())
                jobs = [group.create_task(run()) for run in self._jobs]
                await self._asked.wait()
                for task in jobs:
                    task.cancel()
                return await self._drain(following)
        except ExceptionGroup as errors:
            raise first_of(errors) from None

    def stop(self) -> None:
        """Ask to stop."""
        self._asked.set()

    async def _drain(self, following: asyncio.Task[None]) -> ExitCode:
        """Stop polling; apply what was polled; save the cursors."""
        self._subscriptions.stop()
        await asyncio.wait([following], timeout=self._drain_seconds)
        if following.done():
            return ExitCode.DONE
        log.error(
            "drain_timed_out",
            subscriptions=len(self._subscriptions.current),
            seconds=self._drain_seconds,
        )
        following.cancel()
        return ExitCode.FAILED

    def _on_signal(self, number: signal.Signals) -> None:
        """The first signal asks; the second kills. Nothing is lost by that: the cursor waits for what was applied."""
        if self._asked.is_set():
            os._exit(128 + number)
        log.info("stop_asked", signal=number.name)
        self._asked.set()
