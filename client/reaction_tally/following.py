"""The channels that are followed, and how far their journals are read. Nothing here does I/O."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from redis.exceptions import ResponseError

from reaction_tally.errors import MalformedEntryError
from reaction_tally.journal import EXPIRED, START, JournalEntry, read_entry, stream_order
from reaction_tally.keys import Keys, is_position, read_hint
from reaction_tally.operations import Command
from reaction_tally.replies import check_reply, pairs, text
from reaction_tally.values import Change, Reset

Item = Change | Reset
CHANNELS: Final = 100
"""Channels that are read together."""
ENTRIES: Final = 100
"""Entries of a channel that one round trip reads."""
APPLIED: Final = "applied"
"""The outcome of a change that changed a count."""


def is_any(_: str) -> bool:
    """Tell that a channel is wanted, as each one is."""
    return True


class Following:
    """The position of each channel that is followed, and the channels that have more to read."""

    def __init__(
        self,
        keys: Keys,
        positions: Mapping[str, str],
        *,
        is_open: bool,
        is_wanted: Callable[[str], bool] = is_any,
    ) -> None:
        """``is_open`` follows every channel of the namespace, new ones, too.

        A channel that is not wanted when it changes goes on from there, unread.
        """
        self._keys = keys
        self._is_wanted = is_wanted
        self.is_open = is_open
        self._positions = dict(positions)
        self._given: dict[str, str] = {}
        """The newest position that a change has had, where entries without a change follow it."""
        self._behind: dict[str, None] = {}

    @property
    def channels(self) -> list[str]:
        """The channels that are followed."""
        return list(self._positions)

    @property
    def is_behind(self) -> bool:
        """Whether a channel has more to read."""
        return bool(self._behind)

    def add(self, channels: Iterable[str]) -> None:
        """Follow new channels, too, from their first entry on."""
        for channel in channels:
            self._positions.setdefault(channel, START)

    def note_hint(self, hint: str) -> None:
        """Note what a script says of a new head."""
        channel, head = read_hint(hint) or ("", START)
        if self.is_open and channel:
            self.add([channel])
        position = self._positions.get(channel)
        # Most hints that come late are about entries that have been read.
        if position and stream_order(head) > stream_order(position):
            self._note(channel, head)

    def note_heads(self, heads: Mapping[str, str]) -> None:
        """Note the heads of channels: whoever is elsewhere has more to read."""
        for channel, head in heads.items():
            if head != self._positions[channel]:
                self._note(channel, head)

    def _note(self, channel: str, head: str) -> None:
        if self._is_wanted(channel):
            self._behind[channel] = None
        elif is_position(head):
            self._positions[channel] = head
            self._given.pop(channel, None)

    def readings(self) -> list["Reading"]:
        """Return what reads the channels that are behind; some of them, if there are many."""
        channels = list(islice(self._behind, CHANNELS))
        for channel in channels:
            del self._behind[channel]
        return [Reading(self._keys, channel, self._positions[channel]) for channel in channels]

    def finish(self, reading: "Reading") -> list[Item]:
        """Return what a reading that is done has found; go on from its end."""
        channel = reading.channel
        given = self._given.pop(channel, self._positions[channel])
        items = list(reading.items(given))
        self._positions[channel] = reading.position
        if not items:
            self._given[channel] = given
        return items

    def move(self, reset: Reset) -> None:
        """Go on from where a program wants to after a reset."""
        channel = reset.channel
        if reset.position != self._positions[channel]:
            self._positions[channel] = reset.position
            self._behind[channel] = None


class Reading:
    """Reads the journal of one channel, from a position to its head.

    Of several changes of a tally the newest stays. So it holds as many as tallies have changed.
    """

    def __init__(self, keys: Keys, channel: str, position: str) -> None:
        self.channel = channel
        self.position = position
        self.is_done = False
        self._keys = keys
        self._goal = ""
        """The head at the beginning. Whoever writes all the time must not keep it from its end."""
        self._is_gone = False
        self._counts: dict[str, dict[tuple[str, str], int]] = {}

    def commands(self) -> tuple[Command, Command, Command]:
        """Return what the next round trip reads.

        The head is read before and after the entries.
        If it is the same, it was the head while they were read.
        """
        head: Command = ("GET", self._keys.head(self.channel))
        journal = self._keys.journal(self.channel)
        after = f"({self.position}"
        return head, ("XRANGE", journal, after, "+", "COUNT", ENTRIES), head

    def take(self, replies: Sequence[Any]) -> None:
        """Take the replies to ``commands``.

        Raises:
            TallyReadError: a reply is an error.
        """
        before, journal, after = replies
        heads = _head(before), _head(after)
        entries = _entries(journal)
        if not all(heads) or (entries is None and self.position in heads):
            # Another program wrote the key. Nothing changes until it is mended.
            self.is_done = True
        elif entries is None or not self._follow(entries):
            self._reset(heads)
        else:
            self._look_at_head(heads, is_full=len(entries) == ENTRIES)

    def items(self, given: str) -> Iterator[Item]:
        """Yield what has changed.

        The last change has the new position, and those before it have the one ``given`` last.
        """
        if self._is_gone:
            yield Reset(self.channel, self.position)
            return
        sizes = map(len, self._counts.values())
        left = sum(sizes)
        for message, counts in self._counts.items():
            for (type, value), count in counts.items():
                left -= 1
                yield Change(
                    channel=self.channel,
                    message_timetoken=message,
                    type=type,
                    value=value,
                    count=count,
                    position=given if left else self.position,
                )

    def _follow(self, entries: Sequence[JournalEntry]) -> bool:
        """Take entries; tell whether each one follows the one before it."""
        for entry in entries:
            if entry.after != self.position:
                return False
            self._apply(entry)
            self.position = entry.id
        return True

    def _apply(self, entry: JournalEntry) -> None:
        for change in entry.changes:
            message = change.message_timetoken
            if change.event == EXPIRED:
                self._counts[message] = {("", ""): 0}
            elif change.outcome == APPLIED:
                counts = self._counts.setdefault(message, {})
                counts[change.type, change.value] = change.count

    def _look_at_head(self, heads: Sequence[str], *, is_full: bool) -> None:
        """Tell from the head whether the end is reached, or whether the position is gone."""
        before, after = heads
        self._goal = self._goal or after
        if self.position in heads:
            self.is_done = True
        elif is_full:
            self.is_done = stream_order(self.position) >= stream_order(self._goal)
        elif before == after:
            # No entry leads to the head: Redis went back, or the journal ended unread.
            self._reset(heads)

    def _reset(self, heads: Sequence[str]) -> None:
        self.is_done = True
        self._is_gone = True
        self.position = heads[-1]


def _head(reply: Any) -> str:
    """Return a head; an empty text if it is none.

    Raises:
        TallyReadError: the reply is an error.
    """
    if _is_of_wrong_type(reply):
        return ""
    head = text(check_reply(reply) or START)
    return head if is_position(head) else ""


def _is_of_wrong_type(reply: Any) -> bool:
    return isinstance(reply, ResponseError) and str(reply).startswith("WRONGTYPE")


def _entries(reply: Any) -> list[JournalEntry] | None:
    """Return the entries of a journal; None if they cannot be read.

    Raises:
        TallyReadError: the reply is another error.
    """
    if _is_of_wrong_type(reply):
        return None
    try:
        return [
            read_entry(text(entry_id), dict(pairs(fields)))
            for entry_id, fields in check_reply(reply)
        ]
    except MalformedEntryError:
        return None
