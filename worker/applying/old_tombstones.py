"""Deletes old tombstones of messages that stay busy."""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import structlog

from worker.domain.position import Timetoken
from worker.errors import ScriptRefusedError
from worker.store.batch import batched
from worker.store.tables import RedisServer
from worker.store.tombstones import MessageKey, Tombstones

LEAST: Final = 1000
"""A message with fewer tombstones is left alone."""
CHANNELS_AT_ONCE: Final = 100
MARGIN_SECONDS: Final = 3600.0
"""How much PubNub's clock and the clock of Redis may differ."""

log = structlog.get_logger(__name__)


class OldTombstones:
    """Deletes tombstones that have been there for a whole life.

    Redis deletes a message's tombstones together,
    a life after the newest of them.
    If removals never end, Redis never does.
    So each pass remembers the tombstones it meets.
    A life later those that are unchanged are deleted.
    A restart forgets what was remembered, and costs nothing else.
    """

    def __init__(
        self,
        tombstones: Tombstones,
        server: RedisServer,
        life_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._tombstones = tombstones
        self._server = server
        self._life_seconds = life_seconds
        self._clock = clock
        self._remembered: dict[MessageKey, _Snapshot] = {}

    async def delete(self, channels: Sequence[str]) -> int:
        """Make a pass over these channels; return how many tombstones were deleted."""
        seconds = self._life_seconds + MARGIN_SECONDS
        since = await self._server.now() - seconds * 1000
        messages: list[MessageKey] = []
        for part in batched(channels, CHANNELS_AT_ONCE):
            messages += await self._active(part, since)

        deleted = 0
        remembered = self._remembered
        self._remembered = {}
        for message in messages:
            deleted += await self._visit(message, remembered.get(message))
        return deleted

    async def _active(self, channels: Sequence[str], since: float) -> list[MessageKey]:
        try:
            return await self._tombstones.active_messages(channels, since, LEAST)
        except ScriptRefusedError as error:
            if len(channels) == 1:
                log.warning("expiry_failed", channel=channels[0], reason=str(error))
                return []
        # One of the channels must not keep the others from being visited.
        messages: list[MessageKey] = []
        for channel in channels:
            messages += await self._active([channel], since)
        return messages

    async def _visit(self, message: MessageKey, before: "_Snapshot | None") -> int:
        """Delete what is old enough; remember the rest."""
        if before and self._clock() - before.taken_at < self._life_seconds:
            self._remembered[message] = before
            return 0
        deleted = 0
        young = _hashes()
        scan_cursor = 0
        while True:
            scan_cursor, tombstones = await self._tombstones.scan(message, scan_cursor)
            old = before.those_of(tombstones) if before else {}
            deleted += await self._tombstones.forget(message, old)
            young.extend(map(hash, tombstones.items() - old.items()))
            if not scan_cursor:
                break
        self._remembered[message] = _Snapshot(self._clock(), young)
        return deleted


class _Snapshot:
    """The tombstones that a message had at some time, in eight bytes each."""

    def __init__(self, taken_at: float, hashes: "array[int]") -> None:
        """``taken_at`` is in seconds of the clock."""
        self.taken_at = taken_at
        self._hashes = array("q", sorted(hashes))

    def those_of(self, tombstones: Mapping[str, Timetoken]) -> dict[str, Timetoken]:
        """Return the tombstones that were there, with that very value."""
        return dict(filter(self._has, tombstones.items()))

    def _has(self, tombstone: tuple[str, Timetoken]) -> bool:
        hashes = self._hashes
        wanted = hash(tombstone)
        index = bisect_left(hashes, wanted)
        return index < len(hashes) and hashes[index] == wanted


def _hashes() -> "array[int]":
    return array("q")
