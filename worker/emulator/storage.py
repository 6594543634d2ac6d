"""The stored actions of all channels, with PubNub's rules for them."""

from collections.abc import Iterator
from dataclasses import dataclass

from worker.emulator.actions import Action, ChannelActions, Identity
from worker.emulator.faults import Fault, Faults
from worker.emulator.replies import RefusedError, actions_error
from worker.emulator.timetokens import Timetokens

Truth = dict[str, dict[str, dict[str, dict[str, int]]]]
"""Channel → message timetoken → type → value → number of users.

Zeros and empty levels are left out.
"""


@dataclass(frozen=True, slots=True)
class Limits:
    """PubNub's limits. Smaller ones make small tests possible."""

    cache_messages: int = 100
    cache_seconds: float = 1000.0
    actions_per_message: int = 25_000


class Storage:
    """The actions of one keyset."""

    def __init__(self, time: Timetokens, faults: Faults, limits: Limits) -> None:
        self._time = time
        self._faults = faults
        self._limits = limits
        self._channels: dict[str, ChannelActions] = {}

    def __len__(self) -> int:
        return sum(map(len, self._channels.values()))

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
            types = truth.setdefault(channel, {}).setdefault(message, {})
            values = types.setdefault(type, {})
            values[value] = values.get(value, 0) + 1
        return truth

    def add(
        self,
        channel: str,
        identity: Identity,
        at: int | None,
    ) -> list[Action]:
        """Store one action, or two for a ``twin``.

        ``at`` is a timetoken of the caller's choice.

        Raises:
            RefusedError: It is stored already, or the message is full.
        """
        actions = self._channels.setdefault(channel, ChannelActions())
        self._check(actions, identity)
        timetoken = self._timetoken(actions, identity) if at is None else at
        stored = [self._store(actions, identity, timetoken)]
        if self._faults.strikes(Fault.TWIN):
            stored.append(self._store(actions, identity, self._time.unique()))
        return stored

    def _check(self, actions: ChannelActions, identity: Identity) -> None:
        if actions.has(identity) and not self._faults.strikes(Fault.TWIN):
            raise RefusedError(actions_error(409, "Action Already Added"))
        count = actions.count_of(identity.message_timetoken)
        if count >= self._limits.actions_per_message:
            raise RefusedError(actions_error(400, "Too many actions on this message."))

    def _timetoken(self, actions: ChannelActions, identity: Identity) -> int:
        former = actions.former_timetoken(identity)
        if former is not None and self._faults.strikes(Fault.READD):
            return former - 2 * self._faults.random.randint(1, 50_000)
        latest = actions.latest_timetoken()
        if latest is not None and self._faults.strikes(Fault.TIE):
            return latest
        return self._time.unique()

    def _store(
        self,
        actions: ChannelActions,
        identity: Identity,
        timetoken: int,
    ) -> Action:
        action = Action(identity, timetoken, self._time.now())
        actions.add(action)
        return action

    def remove(
        self,
        channel: str,
        message_timetoken: str,
        timetoken: int,
        uuid: str,
    ) -> tuple[Action, ...]:
        """Remove a user's actions with this timetoken from a message.

        Raises:
            RefusedError: There is none.
        """
        actions = self.channel(channel)
        named = actions.named(message_timetoken, timetoken)
        own = tuple(action for action in named if action.identity.uuid == uuid)
        if not own:
            problem = _NOT_YOURS if named else _NOT_FOUND
            raise RefusedError(actions_error(400, problem))
        for action in own:
            actions.remove(action, self._time.now())
        return own


_NOT_YOURS = "Not deleting message action: wrong uuid specified"
_NOT_FOUND = "No matching message actions to delete"
