"""Events of one channel, laid out as ``lua/apply.lua`` reads them: grouped by message, tally and action."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from worker.domain.action import Added, Event, Pruned, Removed, Restored
from worker.domain.entry import Outcome
from worker.domain.position import TICKS_PER_MILLISECOND
from worker.store.keys import Keys, action_field, tally_field

MAX_BATCH: Final = 500
"""Events a script call may carry, so that Redis never stalls (and Lua's ``unpack`` never overflows)."""

_OUTCOMES: Final = {
    "x" if outcome is Outcome.EXPIRED else outcome.value[0]: outcome for outcome in Outcome
}

_Actions = dict[str, int]
"""uuid → number of its first event in the batch."""


class Batch:
    """One script call: its keys and arguments, and what its answer means."""

    def __init__(self, keys: Keys, channel: str, events: Sequence[Event]) -> None:
        if len(events) > MAX_BATCH:
            raise ValueError(f"{len(events)} events in one batch; {MAX_BATCH} is the limit")
        self.channel = channel
        self.keys = [keys.messages(channel), keys.journal(channel), keys.head(channel)]
        self.args: list[str | int] = []
        self._order: list[int] = []
        self._again: dict[int, list[int]] = {}
        self._newest: dict[str, int] = {}
        self._histories: list[str] = []
        for message, tallies in self._grouped(events).items():
            self.keys += keys.message(channel, message)
            self._lay_out(message, tallies)

    def outcomes(self, letters: str) -> tuple[Outcome, ...]:
        """Return the outcome of each event, in the order the events were given."""
        reply = sorted(zip(self._order, letters, strict=True))
        return tuple(_OUTCOMES[letter] for _, letter in reply)

    @staticmethod
    def count(letters: str) -> Counter[Outcome]:
        """Return how many events had each outcome."""
        return Counter({_OUTCOMES[letter]: count for letter, count in Counter(letters).items()})

    def _grouped(self, events: Sequence[Event]) -> dict[str, dict[tuple[str, str], _Actions]]:
        """Return message → tally → uuid → its first event, and keep what else is to be known of each."""
        messages: dict[str, dict[tuple[str, str], _Actions]] = {}
        newest, histories = self._newest, self._histories
        for number, event in enumerate(events):
            it = event.identity
            message, tally = it.message_timetoken, (it.type, it.value)
            reply, history = _reply(event)
            histories.append(history)
            if (tallies := messages.get(message)) is None:
                tallies = messages[message] = {}
                newest[message] = reply
            elif reply > newest[message]:
                newest[message] = reply
            if (actions := tallies.get(tally)) is None:
                actions = tallies[tally] = {}
            first = actions.setdefault(it.uuid, number)
            if first != number:
                self._again.setdefault(first, []).append(number)
        return messages

    def _lay_out(self, message: str, tallies: dict[tuple[str, str], _Actions]) -> None:
        fields: list[str] = []
        order: list[int] = []
        for (type, value), actions in tallies.items():
            prefix = action_field(type, value, "")
            fields += [prefix + uuid for uuid in actions]
            order += actions.values()
        self.args += (
            message,
            self._newest[message] // TICKS_PER_MILLISECOND,
            len(tallies),
            len(fields),
        )
        self.args += [tally_field(*tally) for tally in tallies]
        self.args += map(len, tallies.values())
        self.args += fields
        histories, again = self._histories, self._again
        if not again:
            self.args += [histories[number] for number in order]
            self._order += order
            return
        for first in order:
            numbers = [first, *again.get(first, ())]
            self.args.append(" ".join([histories[number] for number in numbers]))
            self._order += numbers


def _reply(event: Event) -> tuple[int, str]:
    """Return when PubNub told (inferred: when the action was added), and the event as the script reads it."""
    match event:
        case Added():
            return int(event.published), event.action_timetoken
        case Removed():
            return int(event.published), "r" + event.action_timetoken
        case Pruned():
            return int(event.action_timetoken), "p" + event.action_timetoken
        case Restored():
            return int(event.action_timetoken), f"b{event.action_timetoken},{event.removed_through}"
