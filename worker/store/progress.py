"""How far each channel's backfill has come: the hash ``progress`` of each channel."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, cast

from redis.asyncio import Redis

from worker.domain.position import Timetoken
from worker.store import scripts
from worker.store.hashes import read_hashes
from worker.store.keys import Keys
from worker.store.redis_retry import RedisRetry, retried


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a backfill has come, from newest to oldest.

    Actions between ``newest`` (exclusive) and ``next`` are applied. ``next`` is asked for next.
    ``oldest`` is where the backfill ends (inclusive); None for everything PubNub keeps.
    ``actions`` is how many actions were read.
    """

    newest: Timetoken
    next: Timetoken
    oldest: Timetoken | None = None
    actions: int = 0


class SavedProgress:
    """Reads and writes the progress of backfills that have not ended."""

    def __init__(self, redis: Redis, keys: Keys, retry: RedisRetry | None = None) -> None:
        self._redis = cast("Any", redis)
        self._keys = keys
        self._end = redis.register_script(scripts.source("end_progress"))
        self.retry = retry

    async def read(self, channel: str) -> Progress | None:
        """Return the progress of a channel's backfill; None if there is none."""
        return (await self.read_all([channel])).get(channel)

    @retried
    async def read_all(self, channels: Collection[str]) -> dict[str, Progress]:
        """Return the progress of those channels that have a backfill."""
        names = sorted(channels)
        hashes = await read_hashes(self._redis, map(self._keys.progress, names))
        progress = {}
        for name, fields in zip(names, hashes, strict=True):
            saved = _begun(fields)
            if "newest" in saved and "next" in saved:
                progress[name] = _progress(saved)
        return progress

    @retried
    async def save(self, progress: Progress, *channels: str) -> None:
        """Save the progress of these channels. Only after everything before it is applied."""
        fields: dict[str, str | int] = {
            "newest": progress.newest,
            "next": progress.next,
            "oldest": progress.oldest or "",
            "actions": progress.actions,
        }
        pipe = self._redis.pipeline(transaction=False)
        for channel in channels:
            pipe.hset(self._keys.progress(channel), mapping=fields)
        await pipe.execute()

    @retried
    async def ask_again(self, timetoken: Timetoken, *channels: str) -> None:
        """Ask for another backfill of everything up to ``timetoken``, after the one under way."""
        pipe = self._redis.pipeline(transaction=False)
        for channel in channels:
            pipe.hset(self._keys.progress(channel), "again", timetoken)
        await pipe.execute()

    @retried
    async def end(self, channel: str) -> bool:
        """End the channel's backfill; tell whether another one was asked for, and is saved now."""
        return bool(await self._end(keys=[self._keys.progress(channel)]))


def _begun(fields: Mapping[str, str]) -> Mapping[str, str]:
    """Return the fields; a backfill that was asked for after another had ended begins there."""
    if "again" not in fields:
        return fields
    return {"newest": fields["again"], "next": fields["again"], **fields}


def _progress(fields: Mapping[str, str]) -> Progress:
    oldest = fields.get("oldest") or None
    actions = int(fields.get("actions", 0))
    return Progress(fields["newest"], fields["next"], oldest, actions)
