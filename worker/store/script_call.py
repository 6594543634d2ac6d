"""Events of some channels, laid out as ``lua/apply.lua`` reads them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from reaction_tally.keys import (
    PREFIXES,
    Keys,
    action_field,
    changed_keys,
    message_keys,
    tally_field,
)
from worker.domain.action import Added, Event, Pruned, Removed, Restored
from worker.domain.position import Cursor, Timetoken
from worker.store.batch import MAX_BATCH, batched

Batch = tuple[str, Sequence[Event]]
"""A channel, and events of it."""
_Histories = dict[str, str]
"""uuid → the events of its action, as the script reads them."""


def batches_of_calls(channels: Mapping[str, Sequence[Event]]) -> Iterator[list[Batch]]:
    """Yield the batches of each script call, in the order of each channel's events."""
    batches: list[Batch] = []
    room = MAX_BATCH
    for channel, events in channels.items():
        for part in batched(events, MAX_BATCH):
            if len(part) > room:
                yield batches
                batches = []
                room = MAX_BATCH
            batches.append((channel, part))
            room -= len(part)
    if batches:
        yield batches


@dataclass(slots=True)
class CursorSave:
    """A cursor that is saved after every event before it is applied."""

    subscription: str
    cursor: Cursor
    known: int = 0
    """The number of this process's newest save."""
    age: Callable[[], float] = lambda: 0.0
    """Returns how many seconds ago the cursor was true.

    It is called before each try; its error ends them.
    """
    signs: str = ""
    """The signs of a cluster's shards that this process trusts; see ``ShardSigns``."""
    number: int | None = None
    """The number of this save; None until then.

    It is 0, and nothing is saved, if Redis lacks the save ``known``.
    """

    def arguments(self) -> tuple[str | float, ...]:
        """Return the arguments of ``lua/apply.lua``."""
        age = max(0.0, self.age())
        return self.cursor.timetoken, self.cursor.region, self.known, age, self.signs


class ScriptCall:
    """KEYS and ARGV of one call: events by channel, message, tally and action; then cursors."""

    def __init__(
        self,
        keys: Keys,
        options: Sequence[str | int],
        batches: Sequence[Batch],
        cursors: Sequence[CursorSave],
        who: Iterable[str] = (),
    ) -> None:
        """``options`` are the first arguments of ``lua/apply.lua``.

        ``who`` are the who keys of ranked messages.
        """
        if sum(len(events) for _, events in batches) > MAX_BATCH:
            raise ValueError(f"a script call takes no more than {MAX_BATCH} events")
        self.keys: list[str] = []
        self.args: list[str | float] = [*options, len(batches)]
        self._names = keys
        for channel, events in batches:
            self._add_channel(channel, events)
        for save in cursors:
            self.keys.append(keys.cursor(save.subscription))
            self.args += save.arguments()
        self.keys += who

    def _add_channel(self, channel: str, events: Sequence[Event]) -> None:
        prefix = self._names.prefix(channel)
        self.keys += changed_keys(prefix)
        messages: dict[Timetoken, list[Event]] = {}
        for event in events:
            messages.setdefault(event.identity.message_timetoken, []).append(event)

        args: list[str | float] = []
        for message, own in messages.items():
            self.keys += message_keys(prefix, message)
            args += _one_event(own[0]) if len(own) == 1 else _many_events(message, own)
        self.args += (len(messages), len(args))
        self.args += args


def _one_event(event: Event) -> tuple[str | int, ...]:
    """Return the arguments of a message with one event, as most of them are.

    ``_many_events`` returns the same, but takes more than twice the time.
    """
    identity = event.identity
    tally, prefix = _fields(identity.type, identity.value)
    field = prefix + identity.uuid
    milliseconds = _milliseconds(event)
    return identity.message_timetoken, milliseconds, 1, tally, 1, field, _encode(event)


def _many_events(message: Timetoken, events: Sequence[Event]) -> list[str | int]:
    """Return the arguments of a message."""
    tallies: dict[tuple[str, str], _Histories] = {}
    for event in events:
        identity = event.identity
        tally = _fields(identity.type, identity.value)
        histories = tallies.setdefault(tally, {})
        encoded = _encode(event)
        earlier = histories.get(identity.uuid)
        histories[identity.uuid] = f"{earlier} {encoded}" if earlier else encoded

    names: list[str] = []
    fields: list[str] = []
    encodings: list[str] = []
    for (name, prefix), histories in tallies.items():
        names.append(name)
        fields += [prefix + uuid for uuid in histories]
        encodings += histories.values()
    newest = max(map(_milliseconds, events), key=int)
    counts = map(len, tallies.values())
    return [message, newest, len(names), *names, *counts, *fields, *encodings]


@lru_cache(PREFIXES)
def _fields(type: str, value: str) -> tuple[str, str]:
    """Return a field of ``counts``, and how its fields of ``actions`` begin."""
    return tally_field(type, value), action_field(type, value, "")


def _encode(event: Event) -> str:
    """Return the event as the script reads it."""
    # Most events are additions.
    match event:
        case Added():
            return event.action_timetoken
        case Removed():
            return "r" + event.action_timetoken
        case Pruned():
            return "p" + event.action_timetoken
        case Restored():
            return f"b{event.action_timetoken},{event.removed_through}"


def _milliseconds(event: Event) -> str:
    """Return when it happened: a timetoken counts ten-millionths of a second."""
    return event.published[:-4] or "0"
