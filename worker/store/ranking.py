"""The who keys that scripts need for ranked messages."""

from collections.abc import Iterable, Sequence
from typing import Final

from reaction_tally.keys import Keys, tally_field
from worker.store.script_call import Batch

MOST_KNOWN: Final = 10_000
"""Ranked messages that are remembered. Another one costs its next call a round trip."""


class RankedMessages:
    """The ranked messages that this process has met.

    A script answers which keys it lacks. It is then called again, with these keys.
    A message that is known here gets its keys at once.
    """

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        # Channels and message timetokens, the oldest first.
        self._known: dict[tuple[str, str], None] = {}

    def keys_of(self, batches: Iterable[Batch]) -> set[str]:
        """Return the who keys of the tallies that these events are about."""
        keys: set[str] = set()
        if self._known:
            for channel, events in batches:
                for event in events:
                    identity = event.identity
                    message = identity.message_timetoken
                    if (channel, message) in self._known:
                        tally = tally_field(identity.type, identity.value)
                        keys.add(self._keys.who(channel, message, tally))
        return keys

    def learn(self, keys: Sequence[str]) -> None:
        """Remember the messages of the who keys that a script lacked."""
        messages = map(self._keys.read_message, keys)
        self._known |= dict.fromkeys(filter(None, messages))
        while len(self._known) > MOST_KNOWN:
            oldest = next(iter(self._known))
            del self._known[oldest]
