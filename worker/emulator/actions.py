"""The stored actions of one channel, by timetoken and by identity."""

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
    Both are in ticks.
    """

    identity: Identity
    timetoken: int
    stored_at: int

    def fields(self) -> str:
        """Return its JSON members without the uuid, for an event's ``data``."""
        identity = self.identity
        return (
            f'"type":{quote(identity.type)},'
            f'"value":{quote(identity.value)},'
            f'"actionTimetoken":"{self.timetoken}",'
            f'"messageTimetoken":{quote(identity.message_timetoken)}'
        )

    def json(self) -> str:
        """Return its JSON object, for lists and answers."""
        return f'{{{self.fields()},"uuid":{quote(self.identity.uuid)}}}'


class ChannelActions:
    """One channel's actions, ascending by timetoken.

    Several can share a timetoken, or even an identity.
    """

    def __init__(self) -> None:
        self._ordered: list[Action] = []
        self._stored: dict[Identity, list[Action]] = {}
        self._former: dict[Identity, int] = {}
        self._per_message: Counter[str] = Counter()
        self._removed: deque[tuple[int, Action]] = deque()

    def __len__(self) -> int:
        return len(self._ordered)

    def __iter__(self) -> Iterator[Action]:
        return iter(self._ordered)

    def identities(self) -> Iterator[Identity]:
        """Iterate over the stored identities, each once."""
        return iter(self._stored)

    def has(self, identity: Identity) -> bool:
        """Tell whether this identity is stored now."""
        return identity in self._stored

    def count_of(self, message_timetoken: str) -> int:
        """Return the number of actions of one message."""
        return self._per_message[message_timetoken]

    def latest_timetoken(self) -> int | None:
        """Return the newest timetoken, or None for an empty channel."""
        return self._ordered[-1].timetoken if self._ordered else None

    def former_timetoken(self, identity: Identity) -> int | None:
        """Return the timetoken of an identity that was removed before."""
        return self._former.get(identity)

    def add(self, action: Action) -> None:
        """Store one action."""
        insort(self._ordered, action, key=_by_timetoken)
        self._stored.setdefault(action.identity, []).append(action)
        self._per_message[action.identity.message_timetoken] += 1

    def remove(self, action: Action, now: int) -> None:
        """Remove one stored action, and remember it for a while."""
        index = self._position(action.timetoken)
        while self._ordered[index] is not action:
            index += 1
        del self._ordered[index]
        self._forget(action)
        self._removed.append((now, action))
        while self._removed[0][0] < now - REMEMBERED_TICKS:
            self._removed.popleft()

    def _forget(self, action: Action) -> None:
        identity = action.identity
        self._former[identity] = action.timetoken
        self._per_message[identity.message_timetoken] -= 1
        others = [other for other in self._stored.pop(identity) if other is not action]
        if others:
            self._stored[identity] = others

    def _position(self, timetoken: int) -> int:
        return bisect_left(self._ordered, timetoken, key=_by_timetoken)

    def named(self, message_timetoken: str, timetoken: int) -> list[Action]:
        """Return the actions of one message with this timetoken."""
        return [
            action
            for action in self.within(range(timetoken, timetoken + 1))
            if action.identity.message_timetoken == message_timetoken
        ]

    def within(self, ticks: range, limit: int | None = None) -> list[Action]:
        """Return the actions with these timetokens, ascending.

        There are at most ``limit``, the newest ones.
        """
        begin = self._position(ticks.start)
        end = self._position(ticks.stop)
        if limit is not None:
            begin = max(begin, end - limit)
        return self._ordered[begin:end]

    def removed_since(self, moment: int) -> list[Action]:
        """Return the remembered actions that were removed after that moment."""
        return [action for removed_at, action in self._removed if removed_at > moment]
