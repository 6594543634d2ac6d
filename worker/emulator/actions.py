"""The stored actions of one channel, by timetoken and by identity."""

import sys
from bisect import bisect_left, insort
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii as quote
from operator import attrgetter
from typing import Final, NamedTuple

from worker.emulator.timetokens import TICKS_PER_SECOND

REMEMBERED_TICKS: Final = 5 * TICKS_PER_SECOND
"""How long a removed action is remembered, for lists that lag behind."""

_by_timetoken = attrgetter("timetoken")


class Identity(NamedTuple):
    """A user's reaction to a message. A channel stores it only once."""

    message_timetoken: str
    type: str
    value: str
    uuid: str


@dataclass(frozen=True, slots=True)
class Action:
    """One stored action.

    ``timetoken`` is its name for PubNub. ``stored_at`` is the true time.
    """

    identity: Identity
    timetoken: int
    stored_at: int

    def fields(self) -> str:
        """Return its JSON members without the uuid."""
        identity = self.identity
        return (
            f'"type":{quote(identity.type)},'
            f'"value":{quote(identity.value)},'
            f'"actionTimetoken":"{self.timetoken}",'
            f'"messageTimetoken":{quote(identity.message_timetoken)}'
        )

    def json(self) -> str:
        """Return its JSON object."""
        return f'{{{self.fields()},"uuid":{quote(self.identity.uuid)}}}'


class ChannelActions:
    """One channel's actions, ascending by timetoken.

    Several can share a timetoken, or even an identity.
    """

    def __init__(self) -> None:
        self.ordered: list[Action] = []
        self._stored: dict[Identity, list[Action]] = {}
        self.former: dict[Identity, int] = {}
        """The timetokens of identities that were removed before."""
        self.per_message: Counter[str] = Counter()
        self._removed: deque[tuple[int, Action]] = deque()

    def identities(self) -> Iterator[Identity]:
        """Iterate over the stored identities, each once."""
        return iter(self._stored)

    def has(self, identity: Identity) -> bool:
        """Tell whether this identity is stored now."""
        return identity in self._stored

    def add(self, action: Action) -> None:
        """Store one action."""
        insort(self.ordered, action, key=_by_timetoken)
        self._stored.setdefault(action.identity, []).append(action)
        self.per_message[action.identity.message_timetoken] += 1

    def remove(self, action: Action, now: int) -> None:
        """Remove one stored action, and remember it for a while."""
        identity = action.identity
        index = self._position(action.timetoken)
        while self.ordered[index] is not action:
            index += 1
        del self.ordered[index]

        self._stored[identity].remove(action)
        if not self._stored[identity]:
            del self._stored[identity]
        self.former[identity] = action.timetoken
        self.per_message[identity.message_timetoken] -= 1

        self._removed.append((now, action))
        while self._removed[0][0] < now - REMEMBERED_TICKS:
            self._removed.popleft()

    def _position(self, timetoken: int) -> int:
        return bisect_left(self.ordered, timetoken, key=_by_timetoken)

    def within(self, ticks: range, limit: int = sys.maxsize) -> list[Action]:
        """Return the newest actions with these timetokens, ascending."""
        begin = self._position(ticks.start)
        end = self._position(ticks.stop)
        return self.ordered[max(begin, end - limit) : end]

    def removed_since(self, moment: int) -> Iterator[Action]:
        """Iterate over the actions that were removed after that moment."""
        return (action for removed_at, action in self._removed if removed_at > moment)
