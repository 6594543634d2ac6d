"""The tombstones of messages: the hashes ``removed``."""

from collections.abc import Collection, Mapping

from worker.domain.position import Timetoken
from worker.store.batch import MAX_BATCH, batched
from worker.store.entries import Messages
from worker.store.table import retried


class Tombstones(Messages):
    """Reads and deletes tombstones."""

    @retried
    async def busy_messages(
        self,
        channel: str,
        since_milliseconds: int,
        least: int,
    ) -> list[Timetoken]:
        """Return messages with an event since then, and with at least so many tombstones.

        Raises:
            ScriptRefusedError: a key has the wrong type.
        """
        busy: list[Timetoken] = []
        async for messages in self.messages(channel, since_milliseconds):
            keys = [self._keys.removed(channel, message) for message in messages]
            sizes = await self._each("hlen", keys)
            pairs = zip(messages, sizes, strict=True)
            busy += [message for message, size in pairs if size >= least]
        return busy

    @retried
    async def forget_seen(
        self,
        channel: str,
        message: Timetoken,
        seen: Collection[int],
    ) -> set[int]:
        """Delete the tombstones whose hash was ``seen``; return the hashes of the others."""
        key = self._keys.removed(channel, message)
        others: set[int] = set()
        scan_cursor = 0
        while True:
            scan_cursor, held = await self._redis.hscan(key, scan_cursor, count=MAX_BATCH)
            old = {item for item in held.items() if hash(item) in seen}
            others.update(map(hash, held.items() - old))
            await self.forget(channel, message, dict(old))
            if not scan_cursor:
                return others

    async def forget(
        self,
        channel: str,
        message: Timetoken,
        tombstones: Mapping[str, Timetoken],
    ) -> None:
        """Delete those tombstones that are unchanged."""
        key = self._keys.removed(channel, message)
        for part in batched(list(tombstones.items()), MAX_BATCH):
            args = [text for tombstone in part for text in tombstone]
            await self._call("forget_tombstones", key, *args)
