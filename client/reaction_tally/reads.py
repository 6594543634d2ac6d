"""What readers can read: each read becomes an operation, after its arguments are checked.

Nothing here does I/O. No method is a generator, so a wrong argument raises at once.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime

from reaction_tally.arguments import (
    channel_of,
    channels_of,
    followed_of,
    limit_of,
    positions_of,
    query_of,
    timetoken_of,
    timetokens_of,
    top_of,
    who_of,
)
from reaction_tally.changes import Steps, begin
from reaction_tally.operations import GroupedOperation, Operation, Operations
from reaction_tally.pages import read_page
from reaction_tally.top import read_top
from reaction_tally.values import Counts, Page, RecentMessage, TopMessage, Who
from reaction_tally.who import read_who


class Reads:
    """The reads of both readers. ``TallyReader`` says what each of them is."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self.keys = operations.keys

    def page(
        self,
        channel: str,
        message_timetokens: Iterable[str | int],
        types: Iterable[str] | None,
        me: str | None,
        names: int,
    ) -> Operation[Page]:
        """Return the messages of a page."""
        query = query_of(channel, message_timetokens, types, me, names)
        return read_page(self._operations, query)

    def who(
        self,
        channel: str,
        message_timetoken: str | int,
        type: str,
        value: str,
        limit: int,
        after: str | None,
    ) -> Operation[Who]:
        """Return some of the users of a tally."""
        query = who_of(channel, message_timetoken, type, value, limit, after)
        return read_who(self._operations, query)

    def get(self, channel: str, message_timetoken: str | int) -> Operation[Counts]:
        """Return the counts of a message."""
        timetoken = timetoken_of(message_timetoken)
        return self._operations.get(channel_of(channel), timetoken)

    def get_many(
        self,
        channel: str,
        message_timetokens: Iterable[str | int],
    ) -> Operation[dict[str, Counts]]:
        """Return the counts of messages."""
        timetokens = timetokens_of(message_timetokens)
        return self._operations.get_many(channel_of(channel), timetokens)

    def top(
        self,
        channel: str,
        type: str | None,
        value: str | None,
        since: str | int | datetime | None,
        limit: int,
    ) -> Operation[tuple[TopMessage, ...]]:
        """Return the messages with the most reactions."""
        query = top_of(channel, type, value, since, limit)
        return read_top(self._operations, query)

    def recent(self, channel: str, limit: int) -> Operation[tuple[RecentMessage, ...]]:
        """Return the messages that changed last."""
        return self._operations.recent(channel_of(channel), limit_of(limit))

    def channels(self) -> Operation[frozenset[str]]:
        """Return every channel."""
        return self._operations.channels()

    def in_doubt(self, channels: Iterable[str]) -> Operation[frozenset[str]]:
        """Return the channels in doubt."""
        return self._operations.in_doubt(channels_of(channels))

    def heartbeat_age(self) -> Operation[float | None]:
        """Return how long ago a worker gave a sign of life."""
        return self._operations.heartbeat_age()

    def changes(
        self,
        channels: Iterable[str] | None,
        since: Mapping[str, str] | None,
        away_seconds: float,
    ) -> GroupedOperation[Steps]:
        """Return the steps of a follower."""
        followed = followed_of(channels)
        positions = positions_of(since, followed)
        return begin(self._operations, followed, positions, away_seconds)

    def check(self) -> Operation[None]:
        """Make sure that tallies are there."""
        return self._operations.check()
