"""The last changes of one message: the journal is read backwards, and not for long."""

from dataclasses import dataclass
from typing import Final

from reaction_tally.journal import START, JournalChange, JournalEntry
from worker.store.journal import Journal

ENTRIES: Final = 5_000
"""So many entries of a journal are read at most: a busy room has many a second."""


Found = tuple[JournalEntry, JournalChange]
"""A change, and the entry that holds it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LastChanges:
    """The last changes of one message, the newest first."""

    changes: tuple[Found, ...]
    is_whole: bool
    """Whether these are all changes since the channel was first counted."""
    reaches_back_to: int | None
    """When the oldest entry that was read was written, in milliseconds of Redis's clock."""


async def last_changes(
    journal: Journal,
    channel: str,
    message_timetoken: str,
    limit: int,
) -> LastChanges:
    """Return the last changes of a message, and how far back they reach.

    Raises:
        RedisUnavailableError: Redis does not answer.
        MalformedError: another program wrote into the journal.
    """
    found: list[Found] = []
    oldest: JournalEntry | None = None
    entries = journal.newest_first(channel, ENTRIES)
    async for entry in entries:
        oldest = entry
        found += _changes_of(entry, message_timetoken)
        if len(found) >= limit:
            break
    await entries.aclose()
    reaches_start = oldest is not None and oldest.after == START
    return LastChanges(
        changes=tuple(found[:limit]),
        is_whole=reaches_start and len(found) <= limit,
        reaches_back_to=oldest.milliseconds if oldest else None,
    )


def _changes_of(entry: JournalEntry, message_timetoken: str) -> list[Found]:
    return [
        (entry, change)
        for change in reversed(entry.changes)
        if change.message_timetoken == message_timetoken
    ]
