"""The list of channels, read again when somebody asks (SIGHUP)."""

import asyncio
from collections.abc import Callable

import structlog

from worker.applying.apply import Applier
from worker.errors import ConfigurationError
from worker.live.subscriptions import Subscriptions
from worker.source.names import Names
from worker.store.marks import Marks
from worker.telemetry import metrics

log = structlog.get_logger(__name__)


class Reload:
    """Has the worker follow what the list says; a list that cannot be read changes nothing."""

    def __init__(
        self, read: Callable[[], Names], following: Subscriptions, applier: Applier, marks: Marks
    ) -> None:
        self.read = read
        """Returns the names to follow, as they are listed now; a small file, so nothing waits for long."""
        self._following = following
        self._applier = applier
        self._marks = marks
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Ask for it; asked again while it is under way, it is done once more."""
        self._asked.set()

    async def run(self) -> None:
        """Do it whenever it is asked for, until cancelled."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            try:
                wanted = self.read()
            except ConfigurationError as error:
                metrics.reloads.labels("failed").inc()
                log.error("channels_not_reloaded", reason=str(error))  # noqa: TRY400 - a person's slip, not ours
                continue
            await self._applier.insist(
                self._marks.now
            )  # who cannot save where it has come to had better go on
            added, removed = await self._following.change(wanted)
            metrics.reloads.labels("done").inc()
            await self._applier.insist(
                self._marks.followed
            )  # forgets those whom earlier lists have left behind
            log.info("channels_reloaded", names=len(wanted.all), added=added, removed=removed)
