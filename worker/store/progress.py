"""How far a channel's repair has come: the hash ``progress``."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from worker.domain.position import Timetoken
from worker.store.damage import find_damage, wrong_type_ignored
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


@dataclass(frozen=True, slots=True)
class LookProgress:
    """How far a look at the whole list has come, from newest to oldest."""

    began: int
    """When it began: milliseconds since 1970, by Redis's clock."""
    next: Timetoken | None = None
    """The next piece ends here (exclusive); None: nothing was looked at yet."""
    is_in_doubt: bool = False
    """Whether something could not be proven so far."""
    proven_until: Timetoken = ""
    """As in the report of a reconcile."""


BACKFILL_FIELDS: Final = ("newest", "next", "oldest", "actions")
LOOK_FIELDS: Final = ("look_began", "look_next", "look_in_doubt", "look_proven_until")

log = structlog.get_logger(__name__)


class SavedProgress(Table):
    """Reads and writes how far repairs have come that have not ended.

    A loss costs time only. So what another program wrote there is deleted.
    """

    @retried
    async def read(self, channel: str) -> Progress | None:
        """Return the progress of a channel's backfill; None without one."""
        key = self._keys.progress(channel)
        if await find_damage(self._redis, {key: "hash"}):
            log.error("key_replaced", channel=channel, key=key)
            await self._redis.delete(key)
        return _progress(await self._redis.hgetall(key))

    @retried
    async def read_all(self, channels: Collection[str]) -> dict[str, Progress]:
        """Return the progress of channels with a backfill."""
        hashes = await self._read_hashes(channels, self._keys.progress, {})
        found = {channel: _progress(fields) for channel, fields in hashes.items()}
        return {channel: progress for channel, progress in found.items() if progress}

    @retried
    async def save(self, progress: Progress, *channels: str) -> None:
        """Save progress, after everything before it is applied."""
        fields: dict[str, str | int] = {
            "newest": progress.newest,
            "next": progress.next,
            "oldest": progress.oldest or "",
            "actions": progress.actions,
        }
        pipe = self._redis.pipeline(transaction=False)
        for channel in channels:
            pipe.hset(self._keys.progress(channel), mapping=fields)
        with wrong_type_ignored():
            await pipe.execute()

    @retried
    async def end(self, channel: str) -> None:
        """End a backfill."""
        await self._delete(channel, BACKFILL_FIELDS)

    @retried
    async def read_look(self, channel: str) -> LookProgress | None:
        """Return how far a look has come; None if none is under way."""
        hashes = await self._read_hashes([channel], self._keys.progress, {})
        fields = hashes.get(channel, {})
        try:
            return LookProgress(
                int(fields["look_began"]),
                _time(fields["look_next"]),
                fields["look_in_doubt"] == "1",
                _time(fields["look_proven_until"]),
            )
        except (KeyError, ValueError):
            return None

    @retried
    async def save_look(self, look: LookProgress, channel: str) -> None:
        """Save how far a look has come, after everything above it is corrected."""
        values = (look.began, look.next or "", int(look.is_in_doubt), look.proven_until)
        fields = dict(zip(LOOK_FIELDS, values, strict=True))
        with wrong_type_ignored():
            await self._redis.hset(self._keys.progress(channel), mapping=fields)

    @retried
    async def end_look(self, channel: str) -> None:
        """End a look."""
        await self._delete(channel, LOOK_FIELDS)

    async def _delete(self, channel: str, fields: Sequence[str]) -> None:
        with wrong_type_ignored():
            await self._redis.hdel(self._keys.progress(channel), *fields)


def _progress(fields: Mapping[str, str]) -> Progress | None:
    oldest = fields.get("oldest") or None
    try:
        actions = int(fields.get("actions", 0))
        newest, next = _time(fields["newest"]), _time(fields["next"])
        return Progress(newest, next, oldest and _time(oldest), actions)
    except (KeyError, ValueError):
        return None


def _time(text: str) -> Timetoken:
    """Return a timetoken.

    Raises:
        ValueError: another program wrote it.
    """
    return str(int(text))
