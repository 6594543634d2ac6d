"""Does PubNub know our channels, or is its origin a wrong one?"""

from collections.abc import Iterable
from typing import Final

from worker.reconciliation.list_reader import ListReader
from worker.store.entries import Entries

OTHERS_LOOKED_AT: Final = 1000
"""Other channels that are looked up in Redis.

The aim is to find some that hold reactions.
"""
ORIGIN_PROBES: Final = 10
"""Other channels of which PubNub is asked whether it lists anything."""


class OriginCheck:
    """Asks PubNub about some channels that hold reactions."""

    def __init__(self, reader: ListReader, entries: Entries) -> None:
        self._reader = reader
        self._entries = entries

    async def is_known(self, channel: str, others: Iterable[str]) -> bool:
        """Tell whether PubNub lists anything of other channels that hold reactions.

        A channel that lists nothing at all may have been emptied.
        An origin that lists nothing of any channel is a wrong one.
        If no other channel holds reactions, the answer is True.
        """
        asked = 0
        names = sorted(set(others) - {channel})
        for other in names[:OTHERS_LOOKED_AT]:
            if not await self._entries.has_any(other):
                continue
            if await self._reader.is_listed(other):
                return True
            asked += 1
            if asked == ORIGIN_PROBES:
                break

        return asked == 0
