"""Reads the journals of channels."""

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, cast

from redis.asyncio import Redis

from reaction_tally.errors import MalformedEntryError
from reaction_tally.journal import START, JournalEntry, read_entry
from reaction_tally.keys import Keys
from worker.errors import MalformedError
from worker.store.redis_errors import redis_errors

PAGE: Final = 100
"""Entries read at once."""


class Journal:
    """Reads journals; never writes."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = cast("Any", redis)
        self._keys = keys

    async def entries(
        self,
        channel: str,
        *,
        through: str,
    ) -> AsyncIterator[JournalEntry]:
        """Yield the kept entries up to ``through``, oldest first."""
        key = self._keys.journal(channel)
        after = START
        while True:
            with redis_errors():
                page = await self._redis.xrange(key, f"({after}", through, count=PAGE)
            for after, fields in page:
                yield _entry(after, fields)
            if len(page) < PAGE:
                return


def _entry(entry_id: str, fields: Mapping[str, str]) -> JournalEntry:
    try:
        return read_entry(entry_id, fields)
    except MalformedEntryError as error:
        raise MalformedError(str(error)) from None
