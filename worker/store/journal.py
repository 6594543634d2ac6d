"""A channel's journal, read: what changed, in order. ``worker/store/README.md`` has the contract."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from redis.asyncio import Redis

from worker.domain.position import Timetoken
from worker.errors import MalformedError
from worker.store.connection import redis_errors
from worker.store.keys import Keys, read_action_field

START: Final = "0-0"
"""The position before the first entry; also the head of a channel that never had one."""
PAGE: Final = 100
"""Entries read at once: each may carry a change for every event of a batch."""

EXPIRED: Final = "expired"


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one count, or (``event`` is ``expired``; type, value and uuid are empty) the end of all of them."""

    event: str
    outcome: str
    action_timetoken: Timetoken
    count: int
    """The count after the change."""
    message_timetoken: Timetoken
    type: str
    value: str
    uuid: str


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """What one script call changed."""

    id: str
    after: str
    """The id of the entry before it; whoever does not hold that position has missed something."""
    origin: str
    changes: tuple[Change, ...]

    @property
    def milliseconds(self) -> int:
        """When it was written, by Redis's clock."""
        return int(self.id.partition("-")[0])


class Journal:
    """Reads the journal of one channel after another; it never writes."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = cast("Any", redis)
        self._keys = keys

    async def entries(
        self, channel: str, *, after: str = START, through: str = "+"
    ) -> AsyncIterator[JournalEntry]:
        """Yield what is kept of the entries later than ``after``, up to and with ``through``, oldest first.

        The first one's ``after`` tells whether something between was trimmed, or Redis went back.

        Raises:
            RedisUnavailableError: Redis does not answer.
            MalformedError: an entry is none of ours.
        """
        while True:
            with redis_errors():
                page = await self._redis.xrange(
                    self._keys.journal(channel), f"({after}", through, count=PAGE
                )
            for entry_id, fields in page:
                yield read_entry(entry_id, fields)
                after = entry_id
            if len(page) < PAGE:
                return


def read_entry(entry_id: str, fields: Mapping[str, str]) -> JournalEntry:
    """Return the entry that the fields of a stream's entry tell.

    Raises:
        MalformedError: it is none of ours.
    """
    try:
        numbers = sorted(int(name) for name in fields if name not in {"after", "origin"})
        changes = tuple(_read_change(fields[str(number)]) for number in numbers)
        return JournalEntry(entry_id, fields["after"], fields["origin"], changes)
    except (ValueError, KeyError):
        raise MalformedError(
            f"The journal's entry {entry_id} is not of a kind this version writes."
        ) from None


def _read_change(text: str) -> Change:
    event, outcome, action_timetoken, count, message_timetoken, field = text.split(" ", 5)
    type, value, uuid = ("", "", "") if event == EXPIRED else read_action_field(field)
    return Change(
        event, outcome, action_timetoken, int(count), message_timetoken, type, value, uuid
    )
