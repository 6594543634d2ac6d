"""The stored actions of one channel: what PubNub would list, by timetoken and by identity."""

from bisect import bisect_left, insort
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii as quote
from operator import attrgetter
from typing import Final, NamedTuple

from worker.emulator.timetokens import TICKS_PER_SECOND

GHOST_TICKS: Final = 5 * TICKS_PER_SECOND
"""How long a removed action is remembered, for lists that lag behind."""

_by_timetoken = attrgetter("timetoken")


class Identity(NamedTuple):
    """What may live only once in a channel: who attached what to which message."""

    message_timetoken: str
    type: str
    value: str
    uuid: str


@dataclass(frozen=True, slots=True)
class Action:
    """One stored action. `timetoken` is its PubNub name, `stored_at` the true time of storing (ticks, both)."""

    identity: Identity
    timetoken: int
    stored_at: int

    def fields(self) -> str:
        """Return the members of its JSON object without the uuid, as an event's `data` has them."""
        of = self.identity
        return (
            f'"type":{quote(of.type)},"value":{quote(of.value)},'
            f'"actionTimetoken":"{self.timetoken}","messageTimetoken":{quote(of.message_timetoken)}'
        )

    def json(self) -> str:
        """Return its JSON object as lists and answers have it, lone surrogates escaped."""
        return f'{{{self.fields()},"uuid":{quote(self.identity.uuid)}}}'


class ChannelActions:
    """One channel's actions, ascending by timetoken. Several may share a timetoken, even an identity."""

    def __init__(self) -> None:
        self._ordered: list[Action] = []
        self._living: dict[Identity, list[Action]] = {}
        self._former: dict[Identity, int] = {}
        self._per_message: Counter[str] = Counter()
        self._ghosts: deque[tuple[int, Action]] = deque()

    def __len__(self) -> int:
        return len(self._ordered)

    def __iter__(self) -> Iterator[Action]:
        return iter(self._ordered)

    def identities(self) -> Iterator[Identity]:
        """Iterate over the identities that live, each once."""
        return iter(self._living)

    def lives(self, identity: Identity) -> bool:
        """Tell whether this identity is stored at present."""
        return identity in self._living

    def count_of(self, message_timetoken: str) -> int:
        """Return how many actions one message has."""
        return self._per_message[message_timetoken]

    def latest_timetoken(self) -> int | None:
        """Return the newest timetoken in use, or None when the channel is empty."""
        return self._ordered[-1].timetoken if self._ordered else None

    def former_timetoken(self, identity: Identity) -> int | None:
        """Return the timetoken an identity had when it was last removed, or None if it never was."""
        return self._former.get(identity)

    def add(self, action: Action) -> None:
        """Store one action; an appended one costs no search."""
        insort(self._ordered, action, key=_by_timetoken)
        self._living.setdefault(action.identity, []).append(action)
        self._per_message[action.identity.message_timetoken] += 1

    def remove(self, action: Action, now: int) -> None:
        """Take one stored action away, and remember it for a while."""
        index = bisect_left(self._ordered, action.timetoken, key=_by_timetoken)
        while self._ordered[index] is not action:
            index += 1
        del self._ordered[index]
        self._forget(action)
        self._ghosts.append((now, action))
        while self._ghosts[0][0] < now - GHOST_TICKS:
            self._ghosts.popleft()

    def _forget(self, action: Action) -> None:
        of = action.identity
        self._former[of] = action.timetoken
        remaining = [other for other in self._living[of] if other is not action]
        if remaining:
            self._living[of] = remaining
        else:
            del self._living[of]
        self._per_message[of.message_timetoken] -= 1

    def named(self, message_timetoken: str, timetoken: int) -> list[Action]:
        """Return the actions of one message that share this timetoken."""
        return [
            action
            for action in self.between(timetoken, timetoken + 1)
            if action.identity.message_timetoken == message_timetoken
        ]

    def between(
        self, oldest: int | None, newer: int | None, limit: int | None = None
    ) -> list[Action]:
        """Return actions from `oldest` (inclusive) to `newer` (exclusive), ascending: the newest `limit` of them."""
        low = 0 if oldest is None else bisect_left(self._ordered, oldest, key=_by_timetoken)
        high = (
            len(self._ordered)
            if newer is None
            else bisect_left(self._ordered, newer, key=_by_timetoken)
        )
        return self._ordered[low if limit is None else max(low, high - limit) : high]

    def removed_since(self, moment: int) -> list[Action]:
        """Return actions removed after that moment (as far back as they are remembered)."""
        return [action for removed_at, action in self._ghosts if removed_at > moment]
