"""What one client of /v1/changes follows, and the ids from which it may resume.

The id of an event says how far the client is:

- Of named channels, it has the position of each, in the order of their names, with dots between.
  Any worker of the namespace takes it, because positions are those of the journals.
- Of all channels together that would be too long for a header.
  It is a number that the hub counts, and only the hub that gave it takes it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, starmap

from reaction_tally.following import Item
from reaction_tally.journal import stream_order
from reaction_tally.values import Change, Reset
from worker.api.documents import as_text, change_document, reset_document
from worker.api.parameters import is_entry_id
from worker.web.streams import event

Send = Callable[[bytes], None]


def write(item: Item | None, id: str) -> bytes:
    """Return an item as it goes over the wire; None is a reset of every channel."""
    if isinstance(item, Change):
        return event(as_text(change_document(item)), name="change", id=id)
    return event(as_text(reset_document(item)), name="reset", id=id)


def read_id(text: str, channels: Sequence[str]) -> dict[str, str] | None:
    """Return channel → position of an id; None if it is none of these channels."""
    positions = text.split(".")
    if len(positions) != len(channels) or not all(map(is_entry_id, positions)):
        return None
    return dict(zip(channels, positions, strict=True))


class Subscriber:
    """A client that follows named channels.

    What comes before ``begin`` waits: the client must first get what it has missed.
    """

    def __init__(self, channels: Sequence[str], send: Send) -> None:
        self.channels = tuple(sorted(set(channels)))
        self._send = send
        self._positions: dict[str, str] = {}
        self._early: list[Item] | None = []
        self._held: dict[str, list[Change]] = {}
        """Changes of a channel whose part of the journal begins behind the client."""

    @property
    def id(self) -> str:
        """Where the client may resume."""
        return ".".join(self._positions.values())

    def take(self, item: Item) -> None:
        """Send what the hub found."""
        if self._early is None:
            for new in self._new(item):
                self._send(self._write(new))
        else:
            self._early.append(item)

    def begin(self, positions: dict[str, str], missed: Sequence[Item]) -> list[bytes]:
        """Return what comes first: from positions on, what was missed, and what came since.

        The hub may be behind what was missed: see ``_new``.
        """
        self._positions = {channel: positions[channel] for channel in self.channels}
        first = [event_id(self.id), *map(self._write, missed)]
        new = chain.from_iterable(map(self._new, self._early or ()))
        first += map(self._write, new)
        self._early = None
        return first

    def _new(self, item: Item) -> Iterator[Item]:
        """Yield what the client should know after an item of the hub.

        The hub reads a part of a journal, and yields what it has changed. The last change has the
        position of its end, those before it have that of its beginning. A part that ends behind
        the client has older counts, so it is left out. One that begins behind it is new.
        """
        position = self._positions[item.channel]
        held = self._held.pop(item.channel, [])
        order, here = stream_order(item.position), stream_order(position)
        if isinstance(item, Reset) or order == here:
            yield item
        elif order > here:
            yield from (replace(change, position=position) for change in held)
            yield item
        elif not held or held[-1].position == item.position:
            self._held[item.channel] = [*held, item]

    def _write(self, item: Item) -> bytes:
        self._positions[item.channel] = item.position
        return write(item, self.id)


def event_id(id: str) -> bytes:
    """Return an id alone: the client notes it, and nothing happens."""
    return f"id: {id}\n\n".encode()


def resets(positions: dict[str, str]) -> list[Item]:
    """Return a reset of each channel, for a client whose id says nothing of them."""
    return list(starmap(Reset, positions.items()))
