"""Mends what eviction or a hand has changed in Redis.

The counts and the index of a channel's messages are derived from their actions.
"""

from collections.abc import Collection
from contextlib import AbstractAsyncContextManager

import structlog

from worker.domain.position import Timetoken
from worker.store.audit import Audit, Suspect
from worker.store.entries import Entries
from worker.store.store import Store
from worker.telemetry import metrics

log = structlog.get_logger(__name__)


class Consistency:
    """Makes counts and index what the actions say.

    Each message is written atomically, and journaled.
    If Redis goes away, begin again.
    """

    def __init__(self, entries: Entries, audit: Audit, store: Store) -> None:
        self._entries = entries
        self._audit = audit
        self._store = store

    def damage_named(self, channel: str) -> AbstractAsyncContextManager[None]:
        """As in ``Entries``: let a refusal name the key that nobody but a person can mend."""
        return self._entries.damage_named(channel)

    async def restore(self, channel: str) -> int:
        """Rebuild the channel's messages whose counts differ from their actions.

        Call this before a full look: where actions are lost, too,
        their counts go, and come again with the actions from PubNub's list.

        Return how many messages were rebuilt.

        Raises:
            RedisUnavailableError: Redis is away.
            ScriptRefusedError: a key has the wrong type.
        """
        rebuilt = 0
        async for messages in self._entries.messages(channel):
            async for suspect in self._audit.suspects(channel, messages):
                rebuilt += await self._store.rebuild(channel, suspect)
        return _noted(channel, rebuilt)

    async def restore_messages(
        self,
        channel: str,
        message_timetokens: Collection[Timetoken],
    ) -> int:
        """Index listed messages that Redis holds, and that the index lacks.

        If there is one, all such messages of the channel are indexed,
        because the whole index may be lost.
        A comparison that began before did not see their entries.

        Return how many messages were rebuilt.

        Raises:
            RedisUnavailableError: Redis is away.
            ScriptRefusedError: a key has the wrong type.
        """
        if not await self._audit.lacks_any(channel, message_timetokens):
            return 0
        lost = await self.lost([channel])
        return await self.restore_lost(channel, lost.get(channel, ()))

    async def lost(self, channels: Collection[str]) -> dict[str, set[Timetoken]]:
        """Return the messages that Redis holds and the index lacks.

        Channel → messages. Every key of Redis is looked at once.
        """
        return await self._audit.unindexed(channels)

    async def restore_lost(self, channel: str, messages: Collection[Timetoken]) -> int:
        """Index messages of ``lost`` again, with the right counts.

        Return how many messages were rebuilt.

        Raises:
            RedisUnavailableError: Redis is away.
            ScriptRefusedError: a key has the wrong type.
        """
        suspects = {message: Suspect(message) for message in sorted(messages)}
        async for suspect in self._audit.suspects(channel, list(suspects)):
            suspects[suspect.message_timetoken] = suspect
        rebuilt = 0
        for suspect in suspects.values():
            rebuilt += await self._store.rebuild(channel, suspect)
        return _noted(channel, rebuilt)


def _noted(channel: str, rebuilt: int) -> int:
    """Count and log how many messages were rebuilt."""
    if rebuilt:
        metrics.counts_rebuilt.inc(rebuilt)
        log.warning("counts_rebuilt", channel=channel, messages=rebuilt)
    return rebuilt
