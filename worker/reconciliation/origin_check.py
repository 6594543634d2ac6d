"""Does PubNub know our channels, or is its origin a wrong one?"""

from collections import deque
from heapq import nlargest
from typing import Final

from worker.errors import ForbiddenError, ScriptRefusedError
from worker.reconciliation.list_reader import ListReader
from worker.store.entries import Entries
from worker.store.tables import Tables

WITNESSES_KEPT: Final = 10
"""Channels that PubNub listed lately; they are asked first."""
CHANNELS_LOOKED_UP: Final = 1000
"""Channels that are looked up in Redis, to find some that hold reactions."""
CHANNELS_ASKED: Final = 10
"""Channels with reactions of which PubNub is asked whether it lists anything."""


class OriginCheck:
    """Looks for a channel that PubNub lists.

    A channel that lists nothing at all may have been emptied.
    An origin that lists nothing of any channel is a wrong one.
    """

    def __init__(
        self,
        reader: ListReader,
        entries: Entries,
        tables: Tables,
    ) -> None:
        self._reader = reader
        self._entries = entries
        self._tables = tables
        self._witnesses: deque[str] = deque(maxlen=WITNESSES_KEPT)

    def note_listed(self, channel: str) -> None:
        """Remember that PubNub listed something of this channel."""
        if channel in self._witnesses:
            self._witnesses.remove(channel)
        self._witnesses.append(channel)

    async def is_known(self, channel: str) -> bool:
        """Tell whether PubNub lists anything of another channel.

        If none was found, the answer is False: nobody knows.
        """
        # A copy: other reconciles note channels meanwhile.
        for witness in tuple(reversed(self._witnesses)):
            if witness != channel and await self._is_listed(witness):
                return True
        return await self._is_any_listed(channel)

    async def _is_any_listed(self, channel: str) -> bool:
        """Ask the channels that changed last: their users are still there."""
        others = await self._tables.channels.all() - {channel}
        changed: dict[str, int] = {}
        async for other, proof in self._tables.proofs.scan(others):
            changed[other] = proof.changed
        newest = nlargest(CHANNELS_LOOKED_UP, others, changed.__getitem__)
        asked = 0
        for other in newest:
            if not await self._has_reactions(other):
                continue
            if await self._is_listed(other):
                return True
            asked += 1
            if asked == CHANNELS_ASKED:
                break
        return False

    async def _has_reactions(self, channel: str) -> bool:
        """Tell whether a channel has a live entry; a damaged key says nothing."""
        try:
            return await self._entries.has_any(channel)
        except ScriptRefusedError:
            return False

    async def _is_listed(self, channel: str) -> bool:
        """Tell whether PubNub lists anything of a channel; a refusal says nothing."""
        try:
            return await self._reader.is_listed(channel)
        except ForbiddenError:
            return False
