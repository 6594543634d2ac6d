"""What runs for long: how it starts, how it stops, and what a signal does."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import structlog

from worker.errors import ExitCode, first_of
from worker.ingest import Subscription
from worker.source.names import Names

log = structlog.get_logger(__name__)


class Service:
    """What runs for long: subscriptions, which are drained at the end, and what runs beside them, which is cut off."""

    def __init__(
        self,
        names: Sequence[Names],
        subscription: Callable[[Names], Subscription],
        beside: Sequence[Callable[[], Coroutine[Any, Any, None]]],
        drain_seconds: float,
    ) -> None:
        self._names = names
        self._subscription = subscription
        self._following: dict[asyncio.Task[None], Subscription] = {}
        self._beside = beside
        self._drain_seconds = drain_seconds
        self._asked = asyncio.Event()

    async def run(self) -> ExitCode:
        """Run until a signal asks to stop. A task that dies takes the service down with its error."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        return await self.serve()

    async def serve(self) -> ExitCode:
        """Run until ``stop``."""
        try:
            async with asyncio.TaskGroup() as group:
                for names in self._names:
                    self._follow(names, group)
                beside = [group.create_task(run()) for run in self._beside]
                await self._asked.wait()
                for task in beside:
                    task.cancel()
                return await self._drain()
        except ExceptionGroup as errors:
            raise first_of(errors) from None

    def reread(self) -> None:
        """Have every subscription begin again that no longer knows its Redis."""
        for subscription in self._following.values():
            subscription.reread()

    def stop(self) -> None:
        """Ask to stop."""
        self._asked.set()

    def _follow(self, names: Names, group: asyncio.TaskGroup) -> None:
        subscription = self._subscription(names)

        async def follow() -> None:
            await subscription.run()
            for half in subscription.halves:
                self._follow(half, group)

        task = group.create_task(follow())
        self._following[task] = subscription
        task.add_done_callback(self._following.pop)
        if self._asked.is_set():
            subscription.stop()

    async def _drain(self) -> ExitCode:
        """Stop polling; apply what was polled; save the cursors."""
        for subscription in self._following.values():
            subscription.stop()
        late: set[asyncio.Task[None]] = set()
        if self._following:
            _, late = await asyncio.wait(self._following, timeout=self._drain_seconds)
        for task in late:
            task.cancel()
        if late:
            log.error("drain_timed_out", subscriptions=len(late), seconds=self._drain_seconds)
            return ExitCode.FAILED
        return ExitCode.DONE

    def _on_signal(self, number: signal.Signals) -> None:
        """The first signal asks; the second kills. Nothing is lost by that: the cursor waits for what was applied."""
        if self._asked.is_set():
            os._exit(128 + number)
        log.info("stop_asked", signal=number.name)
        self._asked.set()
