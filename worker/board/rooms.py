"""Channels of the board: found by search, never listed as a whole."""

import heapq
import math
from collections.abc import Callable
from typing import Any, Final

from reaction_tally import AsyncTallyReader
from worker.board.activity import Activity
from worker.store.tables import Tables

FOUND: Final = 50
"""So many channels are shown."""
FRESH_SECONDS: Final = 15.0
"""For so long the names of all channels are kept."""


class Rooms:
    """Finds channels by a part of their names."""

    def __init__(
        self,
        reader: AsyncTallyReader,
        tables: Tables,
        activity: Activity,
        clock: Callable[[], float],
    ) -> None:
        """``clock`` returns Unix time."""
        self._reader = reader
        self._tables = tables
        self._activity = activity
        self._clock = clock
        self._names: frozenset[str] = frozenset()
        self._read_at = -math.inf

    async def names(self) -> frozenset[str]:
        """Return the names of all channels, read lately."""
        now = self._clock()
        if now - self._read_at > FRESH_SECONDS:
            self._names = await self._reader.channels()
            self._read_at = now
        return self._names

    async def search(self, text: str) -> dict[str, Any]:
        """Return channels whose names have this text, the busiest first.

        Without a text: the busiest of all.
        """
        names = await self.names()
        now = self._clock()
        wanted = text.casefold()
        matching = [name for name in names if wanted in name.casefold()]
        rates = {name: self._activity.last_minute(name, now) for name in matching}
        found = heapq.nsmallest(FOUND, matching, key=lambda name: (-rates[name], name))
        owed = await self._tables.pending.read_all(found)
        proofs = {name: proof async for name, proof in self._tables.proofs.scan(found)}
        rows = [
            {
                "channel": name,
                "minute": rates[name],
                "owed": owed.get(name, {}),
                "looked_at": max(proofs[name].recent, proofs[name].whole),
            }
            for name in found
        ]
        return {
            "search": text,
            "all": len(names),
            "matching": len(matching),
            "at": round(1000 * now),
            "channels": rows,
        }
