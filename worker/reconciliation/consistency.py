"""Mends what eviction or a hand has changed in Redis.

Counts and index of messages are derived from their actions.
"""

from collections.abc import Collection

import structlog

from worker.domain.position import Timetoken
from worker.store.audit import Audit
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
        self.entries = entries
        self.audit = audit
        self._store = store

    async def restore(self, channel: str) -> int:
        """Rebuild messages with wrong counts; return how many.

        Call this before a full look: where actions are lost, too,
        their counts go, and come again with the actions from PubNub's list.
        """
        rebuilt = 0
        async for messages in self.entries.messages(channel):
            rebuilt += await self._store.rebuild(channel, messages)
        return _noted(channel, rebuilt)

    async def restore_messages(
        self,
        channel: str,
        message_timetokens: Collection[Timetoken],
    ) -> int:
        """Index listed messages that Redis holds, and that the index lacks.

        If there is one, all such messages of the channel are rebuilt,
        because the whole index may be lost; return how many.
        A comparison that began before did not see their entries.
        """
        rebuilt = await self.restore_lost(channel, message_timetokens)
        if rebuilt:
            lost = await self.audit.unindexed([channel])
            rebuilt += await self.restore_lost(channel, lost.get(channel, ()))
        return rebuilt

    async def restore_lost(self, channel: str, messages: Collection[Timetoken]) -> int:
        """Rebuild messages that the index lacks; return how many."""
        rebuilt = await self._store.rebuild(channel, messages)
        return _noted(channel, rebuilt)


def _noted(channel: str, rebuilt: int) -> int:
    """Count and log how many messages were rebuilt."""
    if rebuilt:
        metrics.counts_rebuilt.inc(rebuilt)
        log.warning("counts_rebuilt", channel=channel, messages=rebuilt)
    return rebuilt
