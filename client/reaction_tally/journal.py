"""The entries of a channel's journal: what changed, in order."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from reaction_tally.errors import MalformedEntryError
from reaction_tally.keys import read_action_field

START: Final = "0-0"
"""The position before the first entry."""
EXPIRED: Final = "expired"
REBUILT: Final = "rebuilt"


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalChange:
    """One change of one count.

    The event ``expired`` is the end of all counts of its message.
    It has no type, value and uuid.
    The event ``rebuilt`` is a count that was wrong; it has no uuid.
    The action timetoken of both is the message timetoken.
    """

    event: str
    outcome: str
    action_timetoken: str
    count: int
    """The count after the change."""
    message_timetoken: str
    type: str
    value: str
    uuid: str


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """What one script call changed."""

    id: str
    after: str
    """The id of the entry before it."""
    origin: str
    changes: tuple[JournalChange, ...]

    @property
    def milliseconds(self) -> int:
        """When it was written, by Redis's clock."""
        return int(self.id.partition("-")[0])


def read_entry(entry_id: str, fields: Mapping[str, str]) -> JournalEntry:
    """Return an entry, read from the fields of the stream.

    Raises:
        MalformedEntryError: this version does not write such entries.
    """
    try:
        numbers = sorted(map(int, fields.keys() - {"after", "origin"}))
        changes = [_read_change(fields[str(number)]) for number in numbers]
        return JournalEntry(entry_id, fields["after"], fields["origin"], tuple(changes))
    except (ValueError, KeyError):
        raise MalformedEntryError(
            f"The journal's entry {entry_id} is not of a kind this version writes."
        ) from None


def _read_change(text: str) -> JournalChange:
    event, outcome, action, count, message, field = text.split(" ", 5)
    if event == EXPIRED:
        type, value, uuid = "", "", ""
    else:
        type, value, uuid = read_action_field(field)
    return JournalChange(
        event=event,
        outcome=outcome,
        action_timetoken=action,
        count=int(count),
        message_timetoken=message,
        type=type,
        value=value,
        uuid=uuid,
    )


def stream_order(stream_id: str) -> tuple[int, int]:
    """Return a sort key of an entry's id."""
    milliseconds, _, sequence = stream_id.partition("-")
    return int(milliseconds), int(sequence or 0)
