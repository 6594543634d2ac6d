"""Events of some channels, laid out as ``lua/apply.lua`` reads them."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

from worker.domain.action import Added, Event, Pruned, Removed, Restored
from worker.domain.position import TICKS_PER_MILLISECOND, Timetoken
from worker.store.batch import MAX_BATCH, batched
from worker.store.cursors import CursorSave
from worker.store.keys import PREFIXES, Keys, action_field, tally_field

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


class ScriptCall:
    """KEYS and ARGV of one call: events by channel, message, tally and action."""

    def __init__(
        self,
        keys: Keys,
        batches: Sequence[Batch],
        options: Sequence[str | int] = (),
    ) -> None:
        """``options`` are the first arguments of ``lua/apply.lua``."""
        if sum(len(events) for _, events in batches) > MAX_BATCH:
            raise ValueError(f"a script call takes no more than {MAX_BATCH} events")
        self.keys: list[str] = []
        self.args: list[str | float] = [*options, len(batches)]
        self._names = keys
        for channel, events in batches:
            self._add_channel(channel, events)

    def add_cursor(self, save: CursorSave) -> None:
        """Add a cursor that is saved after the events."""
        self.keys.append(self._names.cursor(save.subscription))
        self.args += save.arguments()

    def _add_channel(self, channel: str, events: Sequence[Event]) -> None:
        self.keys += self._names.changed(channel)
        args = self.args
        args += (1, 0)
        start = len(args)
        if len(events) == 1:
            self._add_event(channel, events[0])
        else:
            messages: dict[Timetoken, list[Event]] = {}
            for event in events:
                messages.setdefault(event.identity.message_timetoken, []).append(event)
            for message, own in messages.items():
                self._add_message(channel, message, own)
            args[start - 2] = len(messages)
        args[start - 1] = len(args) - start

    def _add_message(self, channel: str, message: Timetoken, events: Sequence[Event]) -> None:
        if len(events) == 1:
            self._add_event(channel, events[0])
            return
        newest = 0
        tallies: dict[tuple[str, str], _Histories] = {}
        for event in events:
            milliseconds, encoded = _encode(event)
            newest = max(newest, milliseconds)
            identity = event.identity
            histories = tallies.setdefault((identity.type, identity.value), {})
            earlier = histories.get(identity.uuid)
            histories[identity.uuid] = f"{earlier} {encoded}" if earlier else encoded
        self.keys += self._names.message(channel, message)
        self._add_tallies(message, newest, tallies)

    def _add_event(self, channel: str, event: Event) -> None:
        """Add the only event of its message, as most of them are."""
        identity = event.identity
        message = identity.message_timetoken
        milliseconds, encoded = _encode(event)
        tally, prefix = _fields(identity.type, identity.value)
        self.keys += self._names.message(channel, message)
        self.args += (message, milliseconds, 1, 1, tally, 1, prefix + identity.uuid, encoded)

    def _add_tallies(
        self,
        message: Timetoken,
        milliseconds: int,
        tallies: Mapping[tuple[str, str], _Histories],
    ) -> None:
        names: list[str] = []
        fields: list[str] = []
        encoded: list[str] = []
        for tally, histories in tallies.items():
            name, prefix = _fields(*tally)
            names.append(name)
            fields += [prefix + uuid for uuid in histories]
            encoded += histories.values()
        self.args += (message, milliseconds, len(names), len(fields))
        self.args += names
        self.args += map(len, tallies.values())
        self.args += fields
        self.args += encoded


@lru_cache(PREFIXES)
def _fields(type: str, value: str) -> tuple[str, str]:
    """Return a field of ``counts``, and how its fields of ``actions`` begin."""
    return tally_field(type, value), action_field(type, value, "")


def _encode(event: Event) -> tuple[int, str]:
    """Return when it happened, in milliseconds, and the event as the script reads it."""
    action_timetoken = event.action_timetoken
    match event:
        case Added():
            return int(event.published) // TICKS_PER_MILLISECOND, action_timetoken
        case Removed():
            return int(event.published) // TICKS_PER_MILLISECOND, "r" + action_timetoken
        case Pruned():
            return int(action_timetoken) // TICKS_PER_MILLISECOND, "p" + action_timetoken
        case Restored():
            pair = f"{action_timetoken},{event.removed_through}"
            return int(action_timetoken) // TICKS_PER_MILLISECOND, "b" + pair
