"""A program that keeps a copy of a channel: a page, then its changes."""

from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from reaction_tally import Change, Page, Reset
from reaction_tally.keys import tally_field

if TYPE_CHECKING:
    from tests.store.journal_follower import Tallies

Item = Change | Reset
LAST: Final = "the end"
"""The value that ends a copy."""


class Copy:
    """The counts of a channel as they were at ``position``."""

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.position = ""
        self.tallies: Tallies = {}
        self.held: dict[str, Tallies] = {}
        """What it held at each position it ever had."""
        self.resets = 0
        self.newest = ""
        """The position to go on from."""

    @property
    def since(self) -> dict[str, str]:
        """Where a new iterator begins."""
        return {self.channel: self.newest}

    def read(self, page: Page) -> None:
        """Take a page of all messages."""
        self.tallies = {
            message.timetoken: {
                tally_field(reaction.type, reaction.value): reaction.count
                for reaction in message.reactions
            }
            for message in page.messages.values()
        }
        self.newest = page.position
        self._move(page.position)

    def take(self, item: Item) -> bool:
        """Take a change; tell whether a page must be read."""
        is_moved = item.position != self.newest
        self.newest = item.position
        if isinstance(item, Reset):
            self.resets += 1
            return True
        counts = self.tallies.setdefault(item.message_timetoken, {})
        if item.ends_message:
            counts.clear()
        elif item.count:
            counts[tally_field(item.type, item.value)] = item.count
        else:
            counts.pop(tally_field(item.type, item.value), None)
        if is_moved:
            self._move(item.position)
        return False

    def has(self, value: str) -> bool:
        """Tell whether a message had this value at the last position."""
        held = self.held.get(self.position, {})
        return any(tally_field("reaction", value) in counts for counts in held.values())

    def _move(self, position: str) -> None:
        self.position = position
        self.held[position] = {
            message: dict(counts) for message, counts in self.tallies.items() if counts
        }


async def keep(reader: Any, copy: Copy, messages: list[str]) -> None:
    """Keep a copy up to date, until it has the last value."""
    async with aclosing(reader.changes([copy.channel], since=copy.since)) as changes:
        async for item in changes:
            if copy.take(item):
                copy.read(await reader.page(copy.channel, messages))
                item.continue_from(copy.position)
            if copy.has(LAST):
                return
