"""How a worker starts and stops, and what a signal does."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import structlog

from worker.errors import ConfigurationError, ExitCode, first_of
from worker.live.subscriptions import Subscriptions
from worker.source.names import Names
from worker.store.tables import Tables
from worker.telemetry import metrics

STOPS: Final = (signal.SIGTERM, signal.SIGINT)
NO_FILE: Final = (
    "TALLY_CHANNELS_FILE is not set, "
    "and .env in the working folder has no other TALLY_HISTORY_RATE. "
    "What is in the environment changes with a restart only. "
    "Restart the worker, "
    "or move the channels to a file."
)

Job = Callable[[], Coroutine[Any, Any, None]]
"""Runs beside the subscriptions until it is cancelled."""

log = structlog.get_logger(__name__)


class EarlySignals:
    """Handles signals while a worker starts.

    By default SIGINT and SIGHUP would end it like a failure.
    The first process of a container would not even notice SIGTERM.
    """

    def __init__(self) -> None:
        """Begin to handle signals; a stop cancels the current task."""
        self.reason = ""
        """What asked for a stop; empty while nothing did."""
        self._has_hung_up = False
        self._starting = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in STOPS:
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        # ``worker/__main__.py`` blocks it:
        # one that came while modules were loaded comes now.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})

    def hand_over(self, service: "Service") -> None:
        """Let the service handle signals, also those that came already."""
        loop = asyncio.get_running_loop()
        for number in STOPS:
            loop.add_signal_handler(number, service.on_signal, number)
        loop.add_signal_handler(signal.SIGHUP, service.hang_up)
        if self._has_hung_up:
            service.hang_up()
        if self.reason:  # a library swallowed the cancellation
            service.stop(self.reason)

    def _stop(self, number: signal.Signals) -> None:
        log.info("stop_asked", signal=number.name)
        self.reason = number.name
        if self._starting:
            self._starting.cancel()

    def _hang_up(self) -> None:
        self._has_hung_up = True


class Service:
    """Runs subscriptions, and jobs beside them, until it is stopped."""

    def __init__(
        self,
        subscriptions: Subscriptions,
        jobs: Sequence[Job],
        drain_seconds: float,
        hang_up: Callable[[], None] | None = None,
    ) -> None:
        """``hang_up`` is what SIGHUP does; without it SIGHUP stops."""
        self._subscriptions = subscriptions
        self._jobs = jobs
        self._drain_seconds = drain_seconds
        self.hang_up = hang_up or self._close
        self.reason = ""
        """Why it stops; empty while it runs."""
        self._stop_request = asyncio.Event()

    async def serve(self) -> ExitCode:
        """Run until ``stop``.

        Raises:
            Exception: the first error of a task; it stops the service.
        """
        try:
            async with asyncio.TaskGroup() as group:
                subscriptions = group.create_task(self._subscriptions.run())
                jobs = [group.create_task(run()) for run in self._jobs]
                await self._stop_request.wait()
                for job in jobs:
                    job.cancel()
                return await self._drain(subscriptions)
        except ExceptionGroup as errors:
            raise first_of(errors) from None

    def stop(self, reason: str) -> None:
        """Ask to stop, for this reason."""
        self.reason = reason
        self._stop_request.set()

    def _close(self) -> None:
        self.stop("SIGHUP: the terminal was closed")

    async def _drain(self, subscriptions: asyncio.Task[None]) -> ExitCode:
        self._subscriptions.stop()
        seconds = self._drain_seconds
        await asyncio.wait([subscriptions], timeout=seconds)
        if subscriptions.done():
            return ExitCode.DONE
        left = len(self._subscriptions.current)
        log.error("drain_timed_out", subscriptions=left, seconds=seconds)
        self.reason += ", and not everything that was read could be applied"
        subscriptions.cancel()
        return ExitCode.FAILED

    def on_signal(self, number: signal.Signals) -> None:
        """Ask to stop at the first signal; end at once at the second."""
        # Nothing is lost: a cursor is saved after its events are applied.
        if self._stop_request.is_set():
            code = 128 + number
            reason = f"a second {number.name}"
            log.warning("worker_stops", reason=reason, exit_code=code)
            os._exit(code)
        log.info("stop_asked", signal=number.name)
        self.stop(number.name)


class Reload:
    """Reads the list of channels and the rate again when SIGHUP asks for it.

    A list that cannot be read changes nothing.
    A list in the environment never changes.
    """

    def __init__(
        self,
        read: Callable[[], Names] | None,
        reload_rate: Callable[[], bool],
        subscriptions: Subscriptions,
        tables: Tables,
    ) -> None:
        """``read`` returns the names to follow, as a file lists them now.

        It is None if there is no file.
        ``reload_rate`` tells whether it had anything to say.
        """
        self._read = read
        self._reload_rate = reload_rate
        self._subscriptions = subscriptions
        self._tables = tables
        self._request = asyncio.Event()

    def ask(self) -> None:
        """Ask for a reload; if one is under way, another one follows."""
        self._request.set()

    async def run(self) -> None:
        """Reload whenever it is asked for, until cancelled."""
        while True:
            await self._request.wait()
            self._request.clear()
            has_news = self._reload_rate()
            if self._read:
                await self._reload(self._read)
            elif not has_news:
                log.warning("nothing_to_reload", reason=NO_FILE)

    async def _reload(self, read: Callable[[], Names]) -> None:
        try:
            wanted = read()
        except ConfigurationError as error:
            metrics.reloads.labels("failed").inc()
            log.error("channels_not_reloaded", reason=str(error))  # noqa: TRY400 - a person's mistake
        else:
            await self._follow(wanted)

    async def _follow(self, wanted: Names) -> None:
        # While Redis is away nothing changes:
        # a subscription must save its cursor before it hands over.
        await self._tables.server.now()
        added, removed = await self._subscriptions.change(wanted)
        metrics.reloads.labels("done").inc()
        # This forgets the subscriptions of earlier lists.
        await self._tables.cursors.followed()
        log.info("channels_reloaded", names=len(wanted.all), added=added, removed=removed)
