"""The tombstones of messages: the hashes ``removed``."""

from collections.abc import Collection, Mapping, Sequence
from itertools import chain, starmap
from typing import Final

from worker.domain.position import Timetoken
from worker.store.batch import MAX_BATCH, batched
from worker.store.entries import Messages
from worker.store.table import retried

MANY_MESSAGES: Final = 20
"""A channel in which so many have changed is looked at by itself."""


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
    async def may_be_busy(
        self,
        channels: Sequence[str],
        since_milliseconds: int,
        least: int,
    ) -> set[str]:
        """Return the channels that may have busy messages; few have.

        A channel with many changes may have some.

        Raises:
            ScriptRefusedError: a key of one of them has the wrong type.
        """
        changed = await self._each(
            "zrangebyscore",
            map(self._keys.messages, channels),
            since_milliseconds,
            "+inf",
            0,
            MANY_MESSAGES,
        )
        pairs = list(zip(channels, changed, strict=True))
        owners = [channel for channel, messages in pairs for _ in messages]
        keys = starmap(self._keys.removed, zip(owners, chain(*changed), strict=True))
        sizes = await self._each("hlen", keys)
        busy = {owner for owner, size in zip(owners, sizes, strict=True) if size >= least}
        many = {channel for channel, messages in pairs if len(messages) == MANY_MESSAGES}
        return busy | many

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
