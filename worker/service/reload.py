"""Reads the list of channels again when SIGHUP asks for it."""

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
    """Makes the worker follow the list as it is now.

    A list that cannot be read changes nothing.
    """

    def __init__(
        self,
        read: Callable[[], Names],
        subscriptions: Subscriptions,
        tables: Tables,
    ) -> None:
        """``read`` returns the names to follow, as listed now."""
        self._read = read
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
            try:
                wanted = self._read()
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
