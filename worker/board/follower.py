"""Follows all changes, while somebody looks."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Final

import structlog

from reaction_tally import AsyncTallyReader
from reaction_tally.errors import RedisUnavailableError, TallyReadError
from worker.board.activity import Activity, BusyMessage, begin, give_up, unread
from worker.board.rooms import Rooms
from worker.errors import TallyError
from worker.store.heads import latest
from worker.store.tables import Tables
from worker.telemetry.throttled_warning import ThrottledWarning

QUIET_SECONDS: Final = 60.0
"""Changes are followed for so long after the last look."""
PAUSE_SECONDS: Final = 2.0
"""The pause after a failure."""
RECALLED_CHANNELS: Final = 50
RECALLED_MESSAGES: Final = 3
"""What is shown before the first change: so many messages of so many channels."""
FAILURES: Final = (TallyReadError, TallyError)

log = structlog.get_logger(__name__)


class Follower:
    """Follows all changes while somebody looks. Nobody costs nothing."""

    def __init__(
        self,
        reader: AsyncTallyReader,
        tables: Tables,
        activity: Activity,
        rooms: Rooms,
        clock: Callable[[], float],
    ) -> None:
        """``clock`` returns Unix time."""
        self._reader = reader
        self._tables = tables
        self._activity = activity
        self._rooms = rooms
        self._clock = clock
        self._looked_at = -math.inf
        self._look = asyncio.Event()
        self._change = asyncio.Event()
        self._is_following = False
        self.warning = ThrottledWarning(log, "board_unreadable", "board_readable", clock)

    def note_look(self) -> None:
        """Note that somebody looks now."""
        self._looked_at = self._clock()
        self._look.set()

    @property
    def is_watched(self) -> bool:
        """Whether somebody has looked lately. Then ``wait_for_look`` does not wait."""
        return self._look.is_set()

    @property
    def _is_quiet(self) -> bool:
        return self._clock() - self._looked_at >= QUIET_SECONDS

    async def wait_for_look(self) -> None:
        """Wait until somebody looks."""
        await self._look.wait()

    async def wait_for_change(self, seconds: float) -> None:
        """Wait until something changes, but not for longer than this."""
        await soon(self._change.wait(), seconds)
        self._change.clear()

    async def run(self) -> None:
        """Follow while somebody looks, until cancelled."""
        while True:
            await self._look.wait()
            following = asyncio.create_task(self._follow())
            try:
                await self._wait_for_quiet()
            finally:
                following.cancel()
                await asyncio.wait([following])
            if self._is_quiet:  # else somebody has looked meanwhile
                self._look.clear()
                self._activity.clear()

    async def _wait_for_quiet(self) -> None:
        while not self._is_quiet:
            left = self._looked_at + QUIET_SECONDS - self._clock()
            await asyncio.sleep(max(left, 0.1))

    async def _follow(self) -> None:
        while True:
            try:
                await self._follow_from_now()
            except FAILURES as error:
                self.warning.failing("changes", reason=str(error))
            except Exception:
                log.exception("board_failed")
            finally:
                self._is_following = False
            await asyncio.sleep(PAUSE_SECONDS)

    async def _follow_from_now(self) -> None:
        """Follow. What was read before the positions may be older: it is read again."""
        names = await self._rooms.names()
        positions = await self._tables.heads.read(names)
        self._activity.forget_all_counts()
        self._is_following = True
        await self._recall(latest(positions, RECALLED_CHANNELS))
        await self._note_changes(positions)

    async def _note_changes(self, since: Mapping[str, str]) -> None:
        async with aclosing(self._reader.changes(since=since)) as changes:
            async for item in changes:
                self._activity.note(item, self._clock())
                self._change.set()
                self.warning.recovered("changes")

    async def _recall(self, channels: Iterable[str]) -> None:
        """Hold messages that changed last: a quiet board is not an empty one."""
        for channel in channels:
            try:
                recent = await self._reader.recent(channel, limit=RECALLED_MESSAGES)
            except RedisUnavailableError:
                raise
            except (*FAILURES, ValueError) as error:
                # Another program wrote it. That concerns this channel alone.
                self.warning.failing("recall", reason=str(error))
                continue
            for message in recent:
                at = message.changed_at / 1000
                self._activity.recall(channel, message.timetoken, at)

    async def read_counts(self, shown: list[BusyMessage]) -> None:
        """Read all counts of those messages of which only changes are known."""
        for channel, messages in unread(shown).items():
            if not await self._read(channel, messages):
                return

    async def _read(self, channel: str, messages: list[BusyMessage]) -> bool:
        """Read the counts of some messages; tell whether Redis answers."""
        readings = begin(messages)
        try:
            timetokens = [message.timetoken for message in messages]
            counts = await self._reader.get_many(channel, timetokens)
            for message, touched in readings:
                message.end_reading(touched, counts[message.timetoken])
                message.is_whole &= self._is_following  # else nobody hears of a change
        except (*FAILURES, ValueError) as error:
            self.warning.failing("counts", reason=str(error))
            return not isinstance(error, RedisUnavailableError)
        finally:
            give_up(readings)  # a request that takes too long is cancelled
        self.warning.recovered("counts")
        return True


async def soon(work: Awaitable[object], seconds: float) -> None:
    """Wait for some work, but not for longer than this."""
    try:
        async with asyncio.timeout(seconds):
            await work
    except TimeoutError:
        return
