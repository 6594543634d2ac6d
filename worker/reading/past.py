"""The changes that the journal of a channel holds."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from reaction_tally import Change, Reset
from reaction_tally.following import APPLIED
from reaction_tally.journal import EXPIRED, JournalEntry
from worker.store.journal import Journal, JournalStart

TallyOfMessage = tuple[str, str, str]
"""Message timetoken, type, value."""


@dataclass(frozen=True, slots=True)
class TimedChange:
    """A change, and when it was written, in milliseconds of Redis's clock."""

    change: Change
    at: int


async def read_past(
    journal: Journal,
    start: JournalStart,
) -> AsyncIterator[TimedChange | Reset]:
    """Yield the changes from a start to the head.

    A reset takes the place of entries that are missing.

    Raises:
        MalformedError: this version does not write such entries.
        ScriptRefusedError: the key is no journal.
    """
    position = start.after
    entries = journal.entries(start.channel, through=start.head, after=position)
    async for entry in entries:
        if entry.after != position:
            yield Reset(start.channel, entry.after)
            position = entry.after
        for change in _changes(entry, start.channel, position):
            yield TimedChange(change, entry.milliseconds)
        position = entry.id
    if position != start.head:
        yield Reset(start.channel, start.head)


def _changes(entry: JournalEntry, channel: str, before: str) -> Iterator[Change]:
    """Yield the tallies that an entry changed. The last one has its position."""
    counts = _counts(entry)
    left = len(counts)
    for (message, type, value), count in counts.items():
        left -= 1
        yield Change(
            channel=channel,
            message_timetoken=message,
            type=type,
            value=value,
            count=count,
            position=before if left else entry.id,
        )


def _counts(entry: JournalEntry) -> dict[TallyOfMessage, int]:
    """Return the counts after an entry. Of several changes of a tally the last one stays."""
    counts: dict[TallyOfMessage, int] = {}
    for change in entry.changes:
        message = change.message_timetoken
        if change.event == EXPIRED:
            counts[message, "", ""] = 0
        elif change.outcome == APPLIED:
            counts[message, change.type, change.value] = change.count
    return counts
