"""How far each backfill has come: the hash ``progress`` of each channel."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from redis.asyncio import Redis

from worker.domain.position import Timetoken
from worker.store.hashes import read_hashes
from worker.store.keys import Keys
from worker.store.redis_retry import RedisRetry
from worker.store.scripts import Script
from worker.store.table import Table, retried


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a backfill has come, from newest to oldest.

    Actions between ``newest`` (exclusive) and ``next`` are applied.
    The next request begins at ``next``.
    The backfill ends at ``oldest`` (inclusive).
    None means: everything that PubNub keeps.
    ``actions`` is how many actions were read.
    """

    newest: Timetoken
    next: Timetoken
    oldest: Timetoken | None = None
    actions: int = 0


class SavedProgress(Table):
    """Reads and writes the progress of backfills that have not ended."""

    def __init__(self, redis: Redis, keys: Keys, retry: RedisRetry | None = None) -> None:
        super().__init__(redis, keys, retry)
        self._end = Script(redis, "end_progress")

    async def read(self, channel: str) -> Progress | None:
        """Return the progress of a channel's backfill; None without one."""
        progress = await self.read_all([channel])
        return progress.get(channel)

    @retried
    async def read_all(self, channels: Collection[str]) -> dict[str, Progress]:
        """Return the progress of those channels that have a backfill."""
        names = sorted(channels)
        keys = map(self._keys.progress, names)
        hashes = await read_hashes(self._redis, keys)
        progress = {}
        for name, fields in zip(names, hashes, strict=True):
            saved = _begun(fields)
            if "newest" in saved and "next" in saved:
                progress[name] = _progress(saved)
        return progress

    @retried
    async def save(self, progress: Progress, *channels: str) -> None:
        """Save the progress of channels.

        Only after everything before it is applied.
        """
        fields: dict[str, str | int] = {
            "newest": progress.newest,
            "next": progress.next,
            "oldest": progress.oldest or "",
            "actions": progress.actions,
        }
        await self._write(channels, fields)

    @retried
    async def ask_again(self, timetoken: Timetoken, *channels: str) -> None:
        """Ask for another backfill, up to ``timetoken``, after this one."""
        await self._write(channels, {"again": timetoken})

    async def _write(self, channels: Collection[str], fields: Mapping[str, str | int]) -> None:
        pipe = self._redis.pipeline(transaction=False)
        for channel in channels:
            pipe.hset(self._keys.progress(channel), mapping=fields)
        await pipe.execute()

    @retried
    async def end(self, channel: str) -> bool:
        """End the channel's backfill.

        Returns True if another backfill was asked for, and is saved now.
        """
        return bool(await self._end.call([self._keys.progress(channel)], []))


def _begun(fields: Mapping[str, str]) -> Mapping[str, str]:
    """Return the fields of a backfill.

    A backfill may be asked for after another one has ended.
    It begins where it was asked for.
    """
    again = fields.get("again")
    if again is None:
        return fields
    return {"newest": again, "next": again, **fields}


def _progress(fields: Mapping[str, str]) -> Progress:
    oldest = fields.get("oldest") or None
    actions = int(fields.get("actions", 0))
    return Progress(fields["newest"], fields["next"], oldest, actions)
