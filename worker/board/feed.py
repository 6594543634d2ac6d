"""Collects once a second what all clients of the board see."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog

from worker.board.activity import Activity, BusyMessage
from worker.board.explaining import Explainer
from worker.board.follower import FAILURES, Follower, soon
from worker.board.frames import Frames
from worker.board.plots import SECONDS as PLOT_SECONDS
from worker.board.plots import Plots
from worker.board.rooms import Rooms
from worker.board.sources import Sources
from worker.board.summary import Status, seconds_ago, summary
from worker.board.work import Newest, Work

TICK_SECONDS: Final = 1.0
"""A quiet board is sent so often: its page knows that the stream lives."""
LEAST_SECONDS: Final = 0.5
"""A change is shown so soon."""
STATUS_SECONDS: Final = 5.0
PATIENCE_SECONDS: Final = 1.0
"""A Redis that hangs must not keep back the status, which says that it hangs."""
ORDER_SECONDS: Final = 3.0
"""Rows keep their places for so long: who reads them should not lose them."""
SHOWN: Final = 50
"""Messages that are shown."""
CHANNEL_SHOWN: Final = 50
"""Messages of one channel that are shown."""

log = structlog.get_logger(__name__)


class Feed:
    """One collector for any number of clients."""

    def __init__(self, sources: Sources, clock: Callable[[], float] = time.time) -> None:
        """``clock`` returns Unix time."""
        self._sources = sources
        self._clock = clock
        self.activity = Activity()
        reader, tables = sources.reader, sources.tables
        self.rooms = Rooms(reader, tables, self.activity, clock)
        self.follower = Follower(reader, tables, self.activity, self.rooms, clock)
        self.explainer = Explainer(reader, sources.journal)
        self.frames = Frames()
        self._facts = Facts(sources, clock)
        self._view = View(self.activity, clock)

    async def run(self) -> None:
        """Collect until cancelled. A failure of the board stops nothing else."""
        while True:
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self.follower.run())
                    group.create_task(self._facts.run(self.follower))
                    group.create_task(self._publish())
            except* Exception:
                log.exception("board_failed")
            await asyncio.sleep(STATUS_SECONDS)

    async def _publish(self) -> None:
        while True:
            if self.frames.clients:
                self.follower.note_look()
            if not self.follower.is_watched:
                # What is known now is old when somebody looks again.
                self.frames.forget()
                self._facts.has_read.clear()
            await self.follower.wait_for_look()
            await self._facts.has_read.wait()
            shown = self._view.messages()
            await self.follower.read_counts(shown)
            self.frames.publish(*self._view.next(shown, self._facts))
            await asyncio.sleep(LEAST_SECONDS)
            await self.follower.wait_for_change(TICK_SECONDS - LEAST_SECONDS)

    async def channel(self, channel: str) -> dict[str, Any]:
        """Return the busiest messages of a channel, and those that changed last.

        Raises:
            TallyReadError: the name is malformed, or Redis does not answer.
        """
        for message in await self._sources.reader.recent(channel, limit=CHANNEL_SHOWN):
            self.activity.recall(channel, message.timetoken, message.changed_at / 1000)
        shown = self.activity.busiest_of(channel, CHANNEL_SHOWN)
        await self.follower.read_counts(shown)
        now = self._clock()
        return {
            "channel": channel,
            "order": [message.id for message in shown],
            "rows": {message.id: message.row(now) for message in shown},
        }


class Facts:
    """What a worker and Redis say about all channels together, every few seconds."""

    def __init__(self, sources: Sources, clock: Callable[[], float]) -> None:
        self._sources = sources
        self._clock = clock
        self._work = Work()
        self.plots = Plots()
        self.summary: Mapping[str, Any] = {}
        self.work: Mapping[str, Any] = {}
        self.read_at = 0.0
        self.has_read = asyncio.Event()

    async def run(self, follower: Follower) -> None:
        """Read until cancelled: the counters always, the rest while somebody looks."""
        while True:
            self.plots.note(self._clock(), await self._sources.counters())
            if follower.is_watched:
                await self._read(follower)
                await asyncio.sleep(STATUS_SECONDS)
            else:
                await soon(follower.wait_for_look(), PLOT_SECONDS)

    async def _read(self, follower: Follower) -> None:
        status = await self._sources.status()
        newest: Newest | None = None
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                newest = await self._sources.tables.dead_letters.newest()
            follower.warning.recovered("quarantine")
        except (*FAILURES, TimeoutError) as error:
            reason = str(error) or "Redis does not answer within a second."
            follower.warning.failing("quarantine", reason=reason)
        self._take(status, newest)

    def _take(self, status: Status, newest: Newest | None) -> None:
        self.read_at = self._clock() - seconds_ago(status)
        self.has_read.set()
        has_worker = self.plots.is_available
        self.summary = summary(status, self.plots.rate, has_worker=has_worker)
        self.work = self._work.view(status, newest, self.read_at)


class View:
    """The document of the page, and what has changed of it."""

    def __init__(self, activity: Activity, clock: Callable[[], float]) -> None:
        self._activity = activity
        self._clock = clock
        self._shown: list[BusyMessage] = []
        self._ordered_at = 0.0
        self._before: dict[str, Any] = {}
        self._last_point = 0

    def messages(self) -> list[BusyMessage]:
        """Return the messages to show; they keep their places for a while."""
        now = self._clock()
        if now - self._ordered_at >= ORDER_SECONDS or len(self._shown) < SHOWN:
            self._shown = self._activity.busiest(SHOWN)
            self._ordered_at = now
        return self._shown

    def next(
        self,
        shown: list[BusyMessage],
        facts: Facts,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the document of now, and what is new in it."""
        now = self._clock()
        document = {
            "at": round(1000 * now),
            "read_at": round(1000 * facts.read_at),
            "summary": facts.summary,
            "work": facts.work,
            "held": len(self._activity),
            "changes": self._activity.changes.last_minute(now),
            "order": [message.id for message in shown],
            "rows": {message.id: message.row(now) for message in shown},
        }
        update = self._update(document)
        self._before = document
        newest = facts.plots.newest(self._last_point)
        if newest["times"]:
            self._last_point = newest["times"][-1]
            update["plots"] = newest
        return document | {"plots": facts.plots.all()}, update

    def _update(self, document: dict[str, Any]) -> dict[str, Any]:
        rows = self._before.get("rows", {})
        changed_rows = changed(rows, document["rows"])
        return changed(self._before, document) | {"rows": changed_rows}


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is new, or another one than before."""
    return {key: value for key, value in after.items() if before.get(key) != value}
