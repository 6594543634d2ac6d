"""How far each backfill has come: the hash ``progress``."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from worker.domain.position import Timetoken
from worker.store.table import Table, retried


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a backfill has come, from newest to oldest.

    It has applied the actions from ``newest`` (exclusive) to ``next``.
    """

    newest: Timetoken
    next: Timetoken
    """The next request begins here."""
    oldest: Timetoken | None = None
    """The end, inclusive; None: all that PubNub keeps."""
    actions: int = 0
    """How many actions were read."""


class SavedProgress(Table):
    """Reads and writes the progress of backfills that have not ended."""

    async def read(self, channel: str) -> Progress | None:
        """Return the progress of a channel's backfill; None without one."""
        progress = await self.read_all([channel])
        return progress.get(channel)

    @retried
    async def read_all(self, channels: Collection[str]) -> dict[str, Progress]:
        """Return the progress of channels with a backfill."""
        hashes = await self._read_hashes(channels, self._keys.progress)
        progress = {}
        for channel, fields in hashes.items():
            saved = _progress(fields)
            if saved:
                progress[channel] = saved
        return progress

    @retried
    async def save(self, progress: Progress, *channels: str) -> None:
        """Save progress, after everything before it is applied."""
        fields: dict[str, str | int] = {
            "newest": progress.newest,
            "next": progress.next,
            "oldest": progress.oldest or "",
            "actions": progress.actions,
        }
        await self._write(channels, fields)

    @retried
    async def ask_again(self, timetoken: Timetoken, *channels: str) -> None:
        """Ask for a backfill up to ``timetoken`` after this one."""
        await self._write(channels, {"again": timetoken})

    async def _write(
        self,
        channels: Collection[str],
        fields: Mapping[str, str | int],
    ) -> None:
        pipe = self._redis.pipeline(transaction=False)
        for channel in channels:
            pipe.hset(self._keys.progress(channel), mapping=fields)
        await pipe.execute()

    @retried
    async def end(self, channel: str) -> bool:
        """End a backfill; return whether another one follows."""
        key = self._keys.progress(channel)
        return bool(await self._call("end_progress", key))


def _progress(fields: Mapping[str, str]) -> Progress | None:
    # A backfill that is asked for when none runs begins there.
    again = fields.get("again")
    newest = fields.get("newest", again)
    next = fields.get("next", again)
    if newest is None or next is None:
        return None
    oldest = fields.get("oldest") or None
    return Progress(newest, next, oldest, int(fields.get("actions", 0)))
