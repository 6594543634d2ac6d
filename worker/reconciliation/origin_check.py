"""Does PubNub know our channels, or is its origin a wrong one?"""

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from heapq import nlargest
from typing import Final

from worker.errors import ForbiddenError, PubNubError, ScriptRefusedError
from worker.reconciliation.list_reader import ListReader
from worker.store.entries import Entries
from worker.store.tables import Tables

WITNESSES_KEPT: Final = 10
"""Channels that PubNub listed lately; they are asked first."""
CHANNELS_LOOKED_UP: Final = 1000
"""Channels that are looked up in Redis: do they hold reactions?"""
CHANNELS_ASKED: Final = 10
"""Channels with reactions of which PubNub is asked."""
NEWEST_SECONDS: Final = 60.0
"""How long it is believed which channels changed last: to find them, all are read."""


class OriginCheck:
    """Looks for a channel that PubNub lists.

    A channel that lists nothing may have been emptied.
    An origin that lists nothing of any channel is a wrong one.
    """

    def __init__(
        self,
        reader: ListReader,
        entries: Entries,
        tables: Tables,
        clock: Callable[[], float],
    ) -> None:
        self._reader = reader
        self._entries = entries
        self._tables = tables
        self._clock = clock
        self._witnesses: deque[str] = deque(maxlen=WITNESSES_KEPT)
        self._newest: Sequence[str] = ()
        self._newest_until = -math.inf
        self._turn = asyncio.Lock()

    def note_listed(self, channel: str) -> None:
        """Remember that PubNub listed something of this channel."""
        if channel in self._witnesses:
            self._witnesses.remove(channel)
        self._witnesses.append(channel)

    async def is_known(self, channel: str) -> bool:
        """Tell whether PubNub lists anything of another channel.

        If none was found, the answer is False: nobody knows.
        A channel that fails is no reason to ask no other.

        Raises:
            PubNubError: none was found, and not all could be asked.
        """
        failure: PubNubError | None = None
        async with aclosing(self._others(channel)) as others:
            async for other in others:
                try:
                    if await self._is_listed(other):
                        return True
                except PubNubError as error:
                    failure = error
        if failure:
            raise failure
        return False

    async def _others(self, channel: str) -> AsyncGenerator[str, None]:
        """Yield channels to ask: those that were listed lately, then those that changed last."""
        # A copy: other reconciles note channels meanwhile.
        witnesses = [name for name in reversed(self._witnesses) if name != channel]
        for witness in witnesses:
            yield witness
        asked = 0
        newest = await self._changed_last()
        for other in filter(channel.__ne__, newest):
            if await self._has_reactions(other):
                yield other
                asked += 1
            if asked == CHANNELS_ASKED:
                return

    async def _changed_last(self) -> Sequence[str]:
        """Return the channels that changed last: their users are still there."""
        async with self._turn:
            now = self._clock()
            if now >= self._newest_until:
                self._newest = await self._read_newest()
                self._newest_until = now + NEWEST_SECONDS
        return self._newest

    async def _read_newest(self) -> Sequence[str]:
        channels = await self._tables.channels.all()
        changed: dict[str, int] = {}
        async for channel, proof in self._tables.proofs.scan(channels):
            changed[channel] = proof.changed
        return nlargest(CHANNELS_LOOKED_UP, channels, changed.__getitem__)

    async def _has_reactions(self, channel: str) -> bool:
        """Tell whether a channel has entries; a damaged key says nothing."""
        try:
            return await self._entries.has_any(channel)
        except ScriptRefusedError:
            return False

    async def _is_listed(self, channel: str) -> bool:
        """Tell whether PubNub lists anything; a refusal says nothing."""
        try:
            return await self._reader.is_listed(channel)
        except ForbiddenError:
            return False
