"""What a shard of a cluster may have lost while nobody watched.

A cursor lies on one shard, and the channels that it covers on others. A shard that lost its newest
writes leaves the cursor as it is. So each cursor is saved with the signs of all shards: whoever
goes on from it sees which of them may have lost something.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection

import structlog

from reaction_tally.keys import Keys
from worker.domain.position import Cursor
from worker.errors import RedisReplacedError
from worker.store.cursors import SavedCursor
from worker.store.key_scan import ChannelScan
from worker.store.pending_repairs import GapCause
from worker.store.redis_retry import RedisRetry
from worker.store.shard_signs import (
    LAYOUT,
    ShardSigns,
    Signs,
    changed_servers,
    text_of,
)
from worker.store.tables import Tables

ReadChannels = Callable[[], Awaitable[Collection[str]]]
"""Returns the channels that a cursor covers."""

log = structlog.get_logger(__name__)


class ShardDoubts:
    """Reads cursors, and makes owed what their shards may have lost since they were saved."""

    def __init__(
        self,
        tables: Tables,
        probe_tables: Tables,
        signs: ShardSigns,
        scan: ChannelScan,
        keys: Keys,
        retry: RedisRetry,
    ) -> None:
        """``probe_tables`` raise where ``tables`` wait."""
        self._tables = tables
        self._probe_tables = probe_tables
        self._signs = signs
        self._scan = scan
        self._keys = keys
        self._retry = retry
        self._detector = retry.rollback_detector
        self._turn = asyncio.Lock()
        self._doubted: set[str] = set()
        """Signs of shards of which everything was made owed."""

    async def read_cursor(
        self,
        subscription: str,
        own: Cursor | None,
        covered: ReadChannels,
    ) -> SavedCursor | None:
        """Return a cursor; None if there is no whole one.

        ``own`` is the newest cursor of this process. What is before it was compared
        whenever a shard changed, so it is in no doubt.
        From here on this process knows the newest journal entry of each channel,
        and its marks. So it notices what is lost later.
        """
        while True:
            saved, signs = await self._retry.call(lambda: self._read(subscription))
            if saved and not _is_behind(saved.cursor, own):
                async with self._turn:
                    await self._doubt(signs, saved.signs)
            await self._remember(await covered())
            after = await self._retry.call(self._signs.read)
            if after == signs:
                return saved

    async def _read(self, subscription: str) -> tuple[SavedCursor | None, Signs]:
        """Return a cursor, and the signs afterwards, which must be the trusted ones."""
        saved = await self._probe_tables.cursors.read(subscription)
        signs = await self._signs.read()
        self._detector.meet(text_of(signs))
        if self._detector.is_suspect:
            raise RedisReplacedError("a shard was restarted, or has another primary")
        return saved, signs

    async def _doubt(self, signs: Signs, saved: str) -> None:
        """Make everything owed on the shards that have other signs than the saved ones."""
        trusted = await self._trusted(signs, saved) | self._doubted
        strange = set(signs.values()) - trusted
        if not strange:
            return
        await self._retry.call(self._signs.refresh_slot_map)
        channels = set(await self._tables.channels.all())
        if self._signs.is_on_other_shard(self._keys.channels, signs, trusted):
            # Names may be lost, too.
            found = await self._scan.channels()
            await self._tables.channels.add(found)
            channels |= found
        doubted = self._signs.on_other_shards(channels, signs, trusted)
        servers = changed_servers(signs, trusted)
        log.error("shards_changed", servers=servers, channels=len(doubted))
        if doubted:
            await self._tables.owe(doubted, GapCause.REDIS_WENT_BACK)
        self._doubted |= strange

    async def _trusted(self, signs: Signs, saved: str) -> set[str]:
        """Return the signs that prove something, of those that a cursor was saved with.

        A channel may have left a shard that has changed, for one that has not.
        Then no sign proves anything.
        """
        words = set(saved.split())
        has_lost = any(not word.startswith(LAYOUT) for word in words - {*signs.values()})
        if has_lost and await self._signs.layout() not in words:
            return set()
        return words

    async def _remember(self, channels: Collection[str]) -> None:
        """Remember heads and marks as if this process had written them."""
        known = self._detector.acknowledged
        known.note_heads(await self._tables.heads.read(channels))
        marks = await self._tables.pending.read_all(channels)
        for channel, causes in marks.items():
            for cause in causes:
                known.note_marks(cause, [channel])


def _is_behind(saved: Cursor, own: Cursor | None) -> bool:
    return own is not None and int(saved.timetoken) <= int(own.timetoken)
