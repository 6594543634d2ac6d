"""The stored actions of all channels, and lists of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from worker.emulator.actions import Action, ChannelActions, Identity
from worker.emulator.faults import Fault, Faults
from worker.emulator.replies import RefusedError, actions_error
from worker.emulator.timetokens import TICKS_PER_SECOND, Timetokens

MAX_ACTIONS_PER_MESSAGE: Final = 25_000
MAX_ITEMS: Final = 100
LONGEST_EMPTY_SECONDS: Final = 3600.0
"""How long one channel lists nothing, at most, if ``empty_channel`` strikes."""
NEVER: Final = 10**20
"""Newer than every timetoken."""

Truth = dict[str, dict[str, dict[str, dict[str, int]]]]
"""Channel → message timetoken → type → value → number of users.

Zeros and empty levels are left out.
"""


@dataclass(frozen=True, slots=True)
class Window:
    """The newest ``limit`` actions between two timetokens.

    ``end`` is inclusive, ``start`` is exclusive.
    """

    start: int | None = None
    end: int | None = None
    limit: int = MAX_ITEMS

    @property
    def ticks(self) -> range:
        """The timetokens between the bounds."""
        oldest = self.end or 0
        if self.start is None:
            return range(oldest, NEVER)
        return range(oldest, self.start)


@dataclass(frozen=True, slots=True)
class Page:
    """A page's actions, ascending by timetoken.

    ``more`` is the start of the next page if the server stopped early. The
    client's own limit leaves no sign, so a full page proves nothing.
    """

    actions: tuple[Action, ...]
    more: int | None = None


class EmptyChannel:
    """The channel that lists nothing for a while. Its events are delivered."""

    def __init__(self, time: Timetokens, faults: Faults) -> None:
        self._time = time
        self._faults = faults
        self._channel = ""
        self._until = 0

    def begin(self, channel: str, seconds: float) -> None:
        """Let this channel, and no other, list nothing for so many seconds."""
        self._channel = channel
        self._until = self._time.now() + int(seconds * TICKS_PER_SECOND)

    def hides(self, channel: str) -> bool:
        """Tell whether a list of this channel is empty now."""
        is_over = self._time.now() >= self._until
        if is_over and self._faults.strikes(Fault.EMPTY_CHANNEL):
            seconds = self._faults.random.uniform(1.0, LONGEST_EMPTY_SECONDS)
            self.begin(channel, seconds)
            is_over = False
        return not is_over and channel == self._channel


class Storage:
    """The actions of one keyset."""

    def __init__(self, time: Timetokens, faults: Faults) -> None:
        self._time = time
        self._faults = faults
        self._channels: dict[str, ChannelActions] = {}
        self._empty_channel = EmptyChannel(time, faults)
        self.list_nothing = self._empty_channel.begin

    def __len__(self) -> int:
        return sum(len(actions.ordered) for actions in self._channels.values())

    def channel(self, name: str) -> ChannelActions:
        """Return the actions of one channel."""
        return self._channels.get(name, ChannelActions())

    def identities(self) -> Iterator[tuple[str, Identity]]:
        """Iterate over channel and identity of everything stored, each once."""
        for channel, actions in self._channels.items():
            for identity in actions.identities():
                yield channel, identity

    def truth(self) -> Truth:
        """Return the true counts. Two actions of one identity count once."""
        truth: Truth = {}
        for channel, identity in self.identities():
            message, type, value, _ = identity
            messages = truth.setdefault(channel, {})
            types = messages.setdefault(message, {})
            values = types.setdefault(type, {})
            values[value] = values.get(value, 0) + 1
        return truth

    def add(self, channel: str, identity: Identity, at: int | None) -> list[Action]:
        """Store one action, or two for a ``twin``.

        ``at`` is a timetoken of the caller's choice.

        Raises:
            RefusedError: It is stored already, or the message is full.
        """
        actions = self._channels.setdefault(channel, ChannelActions())
        self._check_room(actions, identity)
        timetoken = at or self._timetoken(actions, identity)
        action = self._store(actions, identity, timetoken)
        if not self._faults.strikes(Fault.TWIN):
            return [action]

        timetoken = self._time.unique()
        twin = self._store(actions, identity, timetoken)
        return [action, twin]

    def _check_room(self, actions: ChannelActions, identity: Identity) -> None:
        if actions.has(identity) and not self._faults.strikes(Fault.TWIN):
            refusal = actions_error(409, "Action Already Added")
            raise RefusedError(refusal)

        count = actions.per_message[identity.message_timetoken]
        if count >= MAX_ACTIONS_PER_MESSAGE:
            problem = "Too many actions on this message."
            raise RefusedError(actions_error(400, problem))

    def _store(
        self,
        actions: ChannelActions,
        identity: Identity,
        timetoken: int,
    ) -> Action:
        action = Action(identity, timetoken, self._time.now())
        actions.add(action)
        return action

    def _timetoken(self, actions: ChannelActions, identity: Identity) -> int:
        former = actions.former.get(identity)
        if former is not None and self._faults.strikes(Fault.READD):
            steps = self._faults.random.randint(1, 50_000)
            return former - 2 * steps

        if actions.ordered and self._faults.strikes(Fault.TIE):
            newest = actions.ordered[-1]
            return newest.timetoken

        return self._time.unique()

    def remove(
        self,
        channel: str,
        message_timetoken: str,
        timetoken: int,
        uuid: str,
    ) -> list[Action]:
        """Remove a user's actions with this timetoken from a message.

        Raises:
            RefusedError: There is none.
        """
        actions = self.channel(channel)
        ticks = range(timetoken, timetoken + 1)
        named = [
            action
            for action in actions.within(ticks)
            if action.identity.message_timetoken == message_timetoken
        ]
        own = [action for action in named if action.identity.uuid == uuid]
        if not own:
            problem = _NOT_YOURS if named else _NOT_FOUND
            raise RefusedError(actions_error(400, problem))

        for action in own:
            actions.remove(action, self._time.now())
        return own

    def page(self, channel: str, window: Window) -> Page:
        """Return one page of a channel's actions, with the faults of lists."""
        random = self._faults.random
        if self._faults.strikes(Fault.EMPTY) or self._empty_channel.hides(channel):
            return Page(())

        actions = self.channel(channel)
        listed = self._listed(actions, window)
        if listed and self._faults.strikes(Fault.PARTIAL):
            listed = self._drop_some(listed)

        if len(listed) > 2 and self._faults.strikes(Fault.MORE):
            count = random.randint(2, len(listed) - 1)
            newest = listed[-count:]
            return Page(tuple(newest), more=newest[0].timetoken)

        return Page(tuple(listed))

    def _drop_some(self, listed: list[Action]) -> list[Action]:
        """Return the list without one action at least."""
        random = self._faults.random
        del listed[random.randrange(len(listed))]
        return [action for action in listed if random.random() < 0.7]

    def _listed(self, actions: ChannelActions, window: Window) -> list[Action]:
        if self._faults.strikes(Fault.STALE):
            return self._listed_before(actions, window)
        return actions.within(window.ticks, window.limit)

    def _listed_before(self, actions: ChannelActions, window: Window) -> list[Action]:
        """Return the list of a moment ago."""
        seconds = self._faults.random.uniform(0.3, 3.0)
        ticks_ago = int(seconds * TICKS_PER_SECOND)
        moment = self._time.now() - ticks_ago
        ticks = window.ticks
        stored = actions.within(ticks)
        removed = actions.removed_since(moment)
        past = [
            action
            for action in (*stored, *removed)
            if action.stored_at <= moment and action.timetoken in ticks
        ]
        past.sort(key=attrgetter("timetoken"))
        return past[-window.limit :]


_NOT_YOURS = "Not deleting message action: wrong uuid specified"
_NOT_FOUND = "No matching message actions to delete"
