"""What a worker must remember of its own: cursors, debts, a backfill's place, channels met, the quarantine."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, cast

from redis.asyncio import Redis

from worker.domain.position import Cursor, Timetoken
from worker.store import scripts
from worker.store.connection import redis_errors
from worker.store.keys import Keys

QUARANTINE_LENGTH: Final = 10_000
QUARANTINED_CHARACTERS: Final = 4_096


class Gap(StrEnum):
    """Why a channel may lack events; the field of ``owed``."""

    FIRST_START = "first_start"
    """No cursor: whatever happened before the handshake was not followed."""
    STALE_CURSOR = "stale_cursor"
    """PubNub's cache no longer reaches back to where reading stopped."""
    OVERFLOW = "overflow"
    """An answer was full, so there may have been more."""
    FORBIDDEN = "forbidden"
    """PubNub refused the channel for a while."""
    NEW_CHANNEL = "new_channel"
    """Met for the first time, through a group or a wildcard."""
    QUARANTINED = "quarantined"
    """Redis refused one of its events."""


@dataclass(frozen=True, slots=True)
class SavedCursor:
    """A cursor as it was saved, and how many seconds ago, by Redis's clock."""

    cursor: Cursor
    age_seconds: float


@dataclass(frozen=True, slots=True)
class Progress:
    """A backfill's place. Actions between ``newest`` (exclusive) and ``next`` are applied; ``next`` is asked for next.

    ``oldest`` is where it ends (inclusive), or nothing for everything PubNub keeps.
    """

    newest: Timetoken
    next: Timetoken
    oldest: Timetoken | None = None
    actions: int = 0


class Marks:
    """Reads and writes them."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        # redis-py types its commands for both its clients at once; here they are always awaited.
        self._redis = cast("Any", redis)
        self._keys = keys
        self._save_cursor = redis.register_script(scripts.source("save_cursor"))
        self._owe = redis.register_script(scripts.source("owe"))

    async def cursor(self, subscription: str) -> SavedCursor | None:
        """Return where the subscription's next read begins, if it was ever saved whole."""
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            pipe.hgetall(self._keys.cursor(subscription))
            pipe.time()
            saved, (seconds, microseconds) = await pipe.execute()
        try:
            age = seconds + microseconds / 1e6 - float(saved["saved_at"])
            return SavedCursor(Cursor(saved["timetoken"], int(saved["region"])), age)
        except (KeyError, ValueError):
            return None

    async def save_cursor(self, subscription: str, cursor: Cursor) -> None:
        """Save it, with Redis's time. Only after everything before it is applied."""
        with redis_errors():
            await self._save_cursor(keys=[self._keys.cursor(subscription)], args=[cursor.timetoken, cursor.region])

    async def owe(self, channels: Iterable[str], gap: Gap) -> None:
        """Mark that these channels need a repair. Written before anything may be forgotten."""
        with redis_errors():
            for channel in sorted(channels):
                await self._owe(keys=[self._keys.owed(channel)], args=[gap.value])

    async def owed(self, channel: str) -> dict[str, int]:
        """Return cause → milliseconds since 1970 of its newest gap, by Redis's clock."""
        with redis_errors():
            owed = await self._redis.hgetall(self._keys.owed(channel))
        return {cause: int(since) for cause, since in owed.items()}

    async def remember(self, channels: Iterable[str]) -> frozenset[str]:
        """Add channels to those ever seen; return the ones that are new."""
        names = sorted(channels)
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            for name in names:
                pipe.sadd(self._keys.channels, name)
            added = await pipe.execute()
        return frozenset(name for name, new in zip(names, added, strict=True) if new)

    async def channels(self) -> frozenset[str]:
        """Return the channels ever seen."""
        with redis_errors():
            return frozenset(await self._redis.smembers(self._keys.channels))

    async def progress(self, channel: str) -> Progress | None:
        """Return the place of a backfill that has not ended."""
        with redis_errors():
            saved = await self._redis.hgetall(self._keys.progress(channel))
        if not saved:
            return None
        return Progress(saved["newest"], saved["next"], saved.get("oldest") or None, int(saved.get("actions", 0)))

    async def save_progress(self, channel: str, progress: Progress) -> None:
        """Save a backfill's place. Only after everything before it is applied."""
        place = {
            "newest": progress.newest,
            "next": progress.next,
            "oldest": progress.oldest or "",
            "actions": progress.actions,
        }
        with redis_errors():
            await self._redis.hset(self._keys.progress(channel), mapping=place)

    async def forget_progress(self, channel: str) -> None:
        """Say that the channel's backfill has ended."""
        with redis_errors():
            await self._redis.delete(self._keys.progress(channel))

    async def quarantine(self, channel: str, reason: str, payload: str) -> None:
        """Keep what could not be understood or applied, cut to a readable length, with the reason."""
        entry = {
            "channel": _storable(channel),
            "reason": _storable(reason),
            "payload": _storable(payload)[:QUARANTINED_CHARACTERS],
        }
        with redis_errors():
            await self._redis.xadd(self._keys.quarantine, entry, maxlen=QUARANTINE_LENGTH, approximate=True)


def _storable(text: str) -> str:
    """Return the text with what UTF-8 cannot carry (lone surrogates) written as escapes."""
    return text.encode(errors="backslashreplace").decode()
