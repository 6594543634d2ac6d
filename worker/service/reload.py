"""Reads the list of channels again when somebody asks (SIGHUP)."""

import asyncio
from collections.abc import Callable

import structlog

from worker.errors import ConfigurationError
from worker.live.subscriptions import Subscriptions
from worker.source.names import Names
from worker.store.tables import Tables
from worker.telemetry import metrics

log = structlog.get_logger(__name__)


class Reload:
    """Makes the worker follow what the list says; a list that cannot be read changes nothing."""

    def __init__(
        self, read: Callable[[], Names], subscriptions: Subscriptions, tables: Tables
    ) -> None:
        """``read`` returns the names to follow as they are listed now, from a small file."""
        self._read = read
        self._subscriptions = subscriptions
        self._tables = tables
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Ask for a reload; asked again while one is under way, it is done once more."""
        self._asked.set()

    async def run(self) -> None:
        """Reload whenever it is asked for, until cancelled."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            try:
                wanted = self._read()
            except ConfigurationError as error:
                metrics.reloads.labels("failed").inc()
                log.error("channels_not_reloaded", reason=str(error))  # noqa: TRY400 - a person's slip, not ours
            else:
                await self._follow(wanted)

    async def _follow(self, wanted: Names) -> None:
        # While Redis is away nothing changes: a subscription must save its cursor to hand over.
        await self._tables.server.now()
        added, removed = await self._subscriptions.change(wanted)
        metrics.reloads.labels("done").inc()
        await self._tables.cursors.followed()  # forgets the subscriptions of earlier lists
        log.info("channels_reloaded", names=len(wanted.all), added=added, removed=removed)
