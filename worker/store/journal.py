"""Reads the journals of channels."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from redis.asyncio import Redis

from reaction_tally.errors import MalformedEntryError
from reaction_tally.journal import START, JournalEntry, read_entry, stream_order
from reaction_tally.keys import Keys, is_position
from worker.errors import MalformedError
from worker.store.batch import batched
from worker.store.redis_errors import redis_errors

PAGE: Final = 100
"""Entries read at once."""
CHANNELS_AT_ONCE: Final = 200
"""Channels whose starts are read in one transaction."""


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
        after: str = START,
    ) -> AsyncIterator[JournalEntry]:
        """Yield the kept entries after one, up to ``through``, oldest first."""
        key = self._keys.journal(channel)
        position = after
        while True:
            with redis_errors():
                page = await self._redis.xrange(key, f"({position}", through, count=PAGE)
            for position, fields in page:
                yield _entry(position, fields)
            if len(page) < PAGE:
                return

    async def starts(self, channels: Sequence[str], last: str) -> AsyncIterator["JournalStart"]:
        """Yield where to begin in the journal of each channel.

        ``last`` is the id of the last entry that is not wanted. It need not exist.
        """
        for batch in batched(channels, CHANNELS_AT_ONCE):
            # At one instant: an entry may be trimmed at any time.
            pipe = self._redis.pipeline(transaction=True)
            for channel in batch:
                key = self._keys.journal(channel)
                pipe.xrevrange(key, last, "-", count=1)
                pipe.xrange(key, count=1)
                pipe.get(self._keys.head(channel))
            with redis_errors():
                answers = await pipe.execute(raise_on_error=False)
            parts = batched(answers, 3)
            for channel, part in zip(batch, parts, strict=True):
                yield _start(channel, last, *part)

    async def newest_first(
        self,
        channel: str,
        limit: int,
    ) -> AsyncGenerator[JournalEntry]:
        """Yield the kept entries, newest first; so many, or a page more."""
        key = self._keys.journal(channel)
        before = "+"
        for _ in range(0, limit, PAGE):
            with redis_errors():
                page = await self._redis.xrevrange(key, before, "-", count=PAGE)
            for entry_id, fields in page:
                yield _entry(entry_id, fields)
                before = f"({entry_id}"
            if len(page) < PAGE:
                return


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalStart:
    """Where to begin in the journal of a channel."""

    channel: str
    after: str
    """The entry before the first one that is wanted."""
    head: str
    """The last entry."""
    is_cut: bool = False
    """Whether entries that are wanted are gone."""
    oldest: int | None = None
    """When the oldest entry left was written, in milliseconds of Redis's clock.

    None if it does not matter, or if no entry is left.
    """


def _start(channel: str, last: str, before: Any, kept: Any, head: Any) -> JournalStart:
    """Return where to begin: after the last entry that is not wanted, if it is kept."""
    head = head if isinstance(head, str) and is_position(head) else START
    from_head = JournalStart(
        channel=channel,
        after=head,
        head=head,
        is_cut=stream_order(head) > stream_order(last),
    )
    try:
        if before:
            ((after, _),) = before
            return replace(from_head, after=after, is_cut=False)
        if kept:
            ((first, fields),) = kept
            after = fields["after"]
            oldest, _ = stream_order(first)
            is_cut = stream_order(after) > stream_order(last)
            return replace(from_head, after=after, is_cut=is_cut, oldest=oldest)
    except (KeyError, TypeError, ValueError):
        return from_head  # another program wrote the journal
    return from_head


def _entry(entry_id: str, fields: Mapping[str, str]) -> JournalEntry:
    try:
        return read_entry(entry_id, fields)
    except MalformedEntryError as error:
        raise MalformedError(str(error)) from None
