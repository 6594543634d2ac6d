"""Events of one channel, laid out as ``lua/apply.lua`` reads them."""

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

from worker.domain.action import Added, Event, Pruned, Removed, Restored
from worker.domain.position import TICKS_PER_MILLISECOND, Timetoken
from worker.store.keys import Keys, action_field, tally_field

MAX_BATCH: Final = 500
"""Events of one script call: it must not stall Redis."""

Item = TypeVar("Item")
_Actions = dict[str, int]
"""uuid → number of its first event in the batch."""
_Tallies = dict[tuple[str, str], _Actions]
"""Type and value → actions."""


def batched(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Yield the items in parts of at most ``size``."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


class Batch:
    """One script call: events by message, tally and action."""

    def __init__(self, keys: Keys, channel: str, events: Sequence[Event]) -> None:
        if len(events) > MAX_BATCH:
            raise ValueError(f"{len(events)} events in one batch; {MAX_BATCH} is the limit")
        self.keys = [*keys.changed(channel)]
        self.args: list[str | int] = []
        self._encoded: list[str] = []
        """Number → the event as the script reads it."""
        self._repeats: dict[int, list[int]] = {}
        """First event of an action → further events of it."""
        self._newest: dict[Timetoken, int] = {}
        """Message → time of its newest event."""
        for message, tallies in self._group(events).items():
            self.keys += keys.message(channel, message)
            self._add_message(message, tallies)

    def _group(self, events: Sequence[Event]) -> dict[Timetoken, _Tallies]:
        messages: dict[Timetoken, _Tallies] = {}
        newest = self._newest
        add = self._encoded.append
        for number, event in enumerate(events):
            moment, encoded = _encode(event)
            add(encoded)
            identity = event.identity
            message = identity.message_timetoken
            if moment > newest.get(message, -1):
                newest[message] = moment
            tallies = messages.setdefault(message, {})
            tally = identity.type, identity.value
            actions = tallies.setdefault(tally, {})
            first = actions.setdefault(identity.uuid, number)
            if first != number:
                self._repeats.setdefault(first, []).append(number)
        return messages

    def _add_message(self, message: Timetoken, tallies: _Tallies) -> None:
        fields: list[str] = []
        order: list[int] = []
        for (type, value), actions in tallies.items():
            prefix = action_field(type, value, "")
            fields += [prefix + uuid for uuid in actions]
            order += actions.values()
        milliseconds = self._newest[message] // TICKS_PER_MILLISECOND
        self.args += (message, milliseconds, len(tallies), len(fields))
        self.args += [tally_field(*tally) for tally in tallies]
        self.args += map(len, tallies.values())
        self.args += fields
        if self._repeats:
            self._add_histories(order)
            return
        encoded = self._encoded
        self.args += [encoded[number] for number in order]

    def _add_histories(self, order: Sequence[int]) -> None:
        for first in order:
            numbers = [first, *self._repeats.get(first, ())]
            history = [self._encoded[number] for number in numbers]
            self.args.append(" ".join(history))


def _encode(event: Event) -> tuple[int, str]:
    action_timetoken = event.action_timetoken
    match event:
        case Added():
            return int(event.published), action_timetoken
        case Removed():
            return int(event.published), "r" + action_timetoken
        case Pruned():
            return int(action_timetoken), "p" + action_timetoken
        case Restored():
            pair = f"{action_timetoken},{event.removed_through}"
            return int(action_timetoken), "b" + pair
