"""The tombstones of messages: the hashes ``removed``."""

from collections.abc import Mapping, Sequence

from worker.domain.position import Timetoken
from worker.store.batch import MAX_BATCH, batched
from worker.store.scripts import call_script
from worker.store.table import Table, retried

MessageKey = tuple[str, Timetoken]
"""Channel and message timetoken."""


class Tombstones(Table):
    """Reads and deletes tombstones."""

    @retried
    async def active_messages(
        self,
        channels: Sequence[str],
        since_milliseconds: float,
        least: int,
    ) -> list[MessageKey]:
        """Return messages with at least so many tombstones.

        Messages whose newest event is older than ``since`` are left out.

        Raises:
            ScriptRefusedError: a key has the wrong type.
        """
        pipe = self._redis.pipeline(transaction=False)
        for channel in channels:
            index = self._keys.messages(channel)
            pipe.zrangebyscore(index, since_milliseconds, "+inf")
        answers = await pipe.execute()

        active: list[MessageKey] = []
        for channel, messages in zip(channels, answers, strict=True):
            for part in batched(messages, MAX_BATCH):
                active += await self._with_least(channel, part, least)
        return active

    async def _with_least(
        self,
        channel: str,
        messages: Sequence[Timetoken],
        least: int,
    ) -> list[MessageKey]:
        pipe = self._redis.pipeline(transaction=False)
        for message in messages:
            pipe.hlen(self._keys.removed(channel, message))
        sizes = await pipe.execute()
        pairs = zip(messages, sizes, strict=True)
        return [(channel, message) for message, size in pairs if size >= least]

    @retried
    async def scan(
        self,
        message: MessageKey,
        scan_cursor: int,
    ) -> tuple[int, Mapping[str, Timetoken]]:
        """Return the next scan cursor, and field → removed_through."""
        key = self._keys.removed(*message)
        following, tombstones = await self._redis.hscan(key, scan_cursor, count=MAX_BATCH)
        return int(following), tombstones

    @retried
    async def forget(
        self,
        message: MessageKey,
        tombstones: Mapping[str, Timetoken],
    ) -> int:
        """Delete those tombstones that are unchanged; return how many."""
        key = self._keys.removed(*message)
        deleted = 0
        for part in batched(list(tombstones.items()), MAX_BATCH):
            args = [text for tombstone in part for text in tombstone]
            (answer,) = await call_script(self._redis, "forget_tombstones", ([key], args))
            deleted += answer
        return deleted
