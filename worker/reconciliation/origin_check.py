"""Does PubNub know our channels, or is its origin a wrong one?"""

from collections import deque
from itertools import islice
from typing import Final
from zlib import crc32

from worker.errors import ForbiddenError
from worker.reconciliation.list_reader import ListReader
from worker.store.entries import Entries
from worker.store.tables import KnownChannels

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

    def __init__(self, reader: ListReader, entries: Entries, known: KnownChannels) -> None:
        self._reader = reader
        self._entries = entries
        self._known = known
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
        # Each channel asks others in an order of its own.
        # In the order of the alphabet, a few dead channels would speak for all, for ever.
        others = await self._known.all() - {channel}
        names = sorted(others, key=lambda other: crc32(f"{channel} {other}".encode()))
        asked = 0
        for other in islice(names, CHANNELS_LOOKED_UP):
            if not await self._entries.has_any(other):
                continue
            if await self._is_listed(other):
                return True
            asked += 1
            if asked == CHANNELS_ASKED:
                break
        return False

    async def _is_listed(self, channel: str) -> bool:
        """Tell whether PubNub lists anything of a channel; a refusal says nothing."""
        try:
            return await self._reader.is_listed(channel)
        except ForbiddenError:
            return False
