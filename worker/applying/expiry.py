"""Deletes what has expired, and what Redis does not delete by itself."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import structlog

from worker.domain.position import Timetoken
from worker.errors import ScriptRefusedError
from worker.store.apply_script import Ttls
from worker.store.batch import batched
from worker.store.store import Store
from worker.store.tables import Tables
from worker.store.tombstones import Tombstones

EXPIRY_SECONDS: Final = 3600.0
"""Seconds between two passes over all channels."""
CHANNELS_AT_ONCE: Final = 100
"""Channels that are looked at together. Most of them have nothing to delete."""
LEAST_TOMBSTONES: Final = 1000
"""A message with fewer tombstones is left alone."""
MARGIN_SECONDS: Final = 3600
"""How much PubNub's clock and the clock of Redis may differ."""

MessageKey = tuple[str, Timetoken]
"""Channel and message timetoken."""
Snapshot = tuple[float, set[int]]
"""When it was taken, in seconds of the clock, and the hashes of a message's tombstones."""

log = structlog.get_logger(__name__)


class Expiry:
    """Goes over all channels ever seen, once an hour.

    Redis deletes a message's tombstones together,
    a life after the newest of them.
    If removals never end, Redis never does.
    So each pass remembers the tombstones of such messages.
    A life later those that are unchanged are deleted.
    A restart forgets what was remembered, and costs nothing else.
    """

    def __init__(
        self,
        store: Store,
        tables: Tables,
        tombstones: Tombstones,
        ttls: Ttls,
        clock: Callable[[], float],
    ) -> None:
        """``ttls`` are those of the store."""
        self._store = store
        self._tables = tables
        self._tombstones = tombstones
        self._life_seconds = ttls.tombstone_seconds
        self._retention_seconds = ttls.retention_seconds
        self._clock = clock
        self._remembered: dict[MessageKey, Snapshot] = {}

    async def run(self) -> None:
        """Delete until cancelled."""
        while True:
            await self.run_once()
            await asyncio.sleep(EXPIRY_SECONDS)

    async def run_once(self) -> int:
        """Delete the old messages and the old tombstones of every channel.

        Return how many messages were deleted.
        """
        channels = sorted(await self._tables.channels.own())
        now = await self._tables.server.now()
        since = now - 1000 * (self._life_seconds + MARGIN_SECONDS)
        remembered = self._remembered
        self._remembered = {}
        messages = 0
        for batch in batched(channels, CHANNELS_AT_ONCE):
            for channel in await self._to_visit(batch, now, since):
                try:
                    messages += await self._store.sweep(channel)
                    await self._forget_tombstones(channel, since, remembered)
                except ScriptRefusedError as error:
                    # One channel must not keep the others from being visited.
                    log.warning("expiry_failed", channel=channel, reason=str(error))
        if messages:
            log.info("swept", messages=messages)
        return messages

    async def _to_visit(
        self,
        channels: Sequence[str],
        now: int,
        since: int,
    ) -> Iterable[str]:
        """Return the channels that may have something to delete."""
        tombstones, retention = self._tombstones, self._retention_seconds
        try:
            found = await tombstones.may_be_busy(channels, since, LEAST_TOMBSTONES)
            if retention:
                oldest = f"{now // 1000 - retention}0000000"
                found |= await tombstones.may_have_older(channels, oldest)
        except ScriptRefusedError:
            # One of them is damaged. Its visit says so.
            return channels
        return sorted(found)

    async def _forget_tombstones(
        self,
        channel: str,
        since: int,
        remembered: dict[MessageKey, Snapshot],
    ) -> None:
        """Delete the tombstones that were there a life ago; remember the others."""
        tombstones = self._tombstones
        for message in await tombstones.busy_messages(channel, since, LEAST_TOMBSTONES):
            key = (channel, message)
            taken_at, seen = remembered.get(key, (self._clock(), set()))
            if not seen or self._clock() - taken_at >= self._life_seconds:
                seen = await tombstones.forget_seen(channel, message, seen)
                taken_at = self._clock()
            self._remembered[key] = taken_at, seen
