"""The emulator without HTTP: what is stored, what is published, the truth. No loop, no sleep, no clock of its own."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from random import Random

from worker.emulator.actions import Action, ChannelActions, Identity
from worker.emulator.cache import Message
from worker.emulator.envelopes import Envelopes
from worker.emulator.faults import Fault, Faults
from worker.emulator.history import History, Page, Window
from worker.emulator.replies import RefusedError, actions_error
from worker.emulator.stream import Answer, Cursor, Stream
from worker.emulator.subscription import Subscription
from worker.emulator.timetokens import TICKS_PER_MILLISECOND, Clock, Timetokens
from worker.emulator.trouble import OUTAGE_OPERATIONS, Trouble

Truth = dict[str, dict[str, dict[str, dict[str, int]]]]
"""channel → message timetoken → type → value → count of users; without zeros and without empty levels."""


@dataclass(frozen=True, slots=True)
class Limits:
    """PubNub's limits; smaller ones make small tests possible."""

    cache_messages: int = 100
    cache_seconds: float = 1000.0
    actions_per_message: int = 25_000


@dataclass(frozen=True, slots=True)
class Change:
    """What an addition or removal did. `published` is False when no event will ever tell of it (207)."""

    actions: tuple[Action, ...]
    published: bool


class State:
    """One keyset of PubNub, driven by calls. The same clock, random source and calls give the same answers.

    `subscribe_key` only appears in messages. A refused request raises RefusedError with the reply PubNub gives.
    """

    def __init__(
        self,
        clock: Clock,
        random: Random,
        faults: Mapping[str, float] | None = None,
        subscribe_key: str = "demo",
        limits: Limits | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.time = Timetokens(clock)
        self.faults = Faults(faults, random)
        self.trouble = Trouble(self.faults)
        self.stream = Stream(
            self.time,
            self.faults,
            messages=self.limits.cache_messages,
            seconds=self.limits.cache_seconds,
        )
        self.groups = self.stream.groups
        self.published = 0
        self._history = History(self.faults)
        self._envelopes = Envelopes(subscribe_key)
        self._channels: dict[str, ChannelActions] = {}

    def add(
        self,
        channel: str,
        message_timetoken: str,
        type: str,
        value: str,
        uuid: str,
        *,
        published: bool = True,
        at: int | None = None,
    ) -> Change:
        """Store one action, and publish it unless `published` is False or a fault has it so.

        `at` is a timetoken of the caller's choice, for a history that lies in the past. A `twin` stores two; the last
        of `actions` is the one the user is told of.
        """
        identity = Identity(message_timetoken, type, value, uuid)
        actions = self._channels.setdefault(channel, ChannelActions())
        stored = [self._store(actions, identity, at)]
        if self.faults.strikes(Fault.TWIN):
            stored.append(self._keep(actions, identity, self.time.unique()))
        published = published and not self.faults.strikes(Fault.UNPUBLISHED)
        if published:
            for action in stored:
                self._announce("added", channel, action, uuid)
        return Change(tuple(stored), published)

    def _store(self, actions: ChannelActions, identity: Identity, at: int | None) -> Action:
        if actions.lives(identity) and not self.faults.strikes(Fault.TWIN):
            raise RefusedError(actions_error(409, "Action Already Added"))
        if actions.count_of(identity.message_timetoken) >= self.limits.actions_per_message:
            raise RefusedError(actions_error(400, "Too many actions on this message."))
        return self._keep(
            actions, identity, self._timetoken_for(actions, identity) if at is None else at
        )

    def _keep(self, actions: ChannelActions, identity: Identity, timetoken: int) -> Action:
        action = Action(identity, timetoken, self.time.now())
        actions.add(action)
        return action

    def _timetoken_for(self, actions: ChannelActions, identity: Identity) -> int:
        latest, former = actions.latest_timetoken(), actions.former_timetoken(identity)
        if former is not None and self.faults.strikes(Fault.READD):
            return former - 2 * self.faults.random.randint(1, 50_000)
        if latest is not None and self.faults.strikes(Fault.TIE):
            return latest
        return self.time.unique()

    def remove(
        self,
        channel: str,
        message_timetoken: str,
        action_timetoken: int,
        uuid: str,
        *,
        published: bool = True,
    ) -> Change:
        """Take away every action of that user on that message with that timetoken, with one event each."""
        actions = self._channels.get(channel, ChannelActions())
        named = actions.named(message_timetoken, action_timetoken)
        own = tuple(action for action in named if action.identity.uuid == uuid)
        if not own:
            problem = "wrong uuid specified" if named else "No matching message actions to delete"
            raise RefusedError(
                actions_error(400, f"Not deleting message action: {problem}" if named else problem)
            )
        published = published and not self.faults.strikes(Fault.UNPUBLISHED)
        for action in own:
            actions.remove(action, self.time.now())
            if published:
                self._announce("removed", channel, action, uuid)
        return Change(own, published)

    def _announce(self, event: str, channel: str, action: Action, uuid: str) -> None:
        position = self.stream.next_position()
        body = self._envelopes.action(event, channel, action, uuid, self._publish_time(position))
        self._publish(channel, Message(position, body))

    def _publish_time(self, position: int) -> int:
        if self.faults.strikes(Fault.AHEAD):
            return position + self.faults.random.randint(10, 100) * TICKS_PER_MILLISECOND
        return position

    def _publish(self, channel: str, message: Message) -> None:
        self.published += 1
        self.stream.publish(channel, message)

    def publish(self, channel: str, payload: object, uuid: str, *, kind: int = 0) -> str:
        """Publish an ordinary message (or a signal: kind 1) and return its timetoken."""
        position = self.stream.next_position()
        body = self._envelopes.message(kind, channel, payload, uuid, self._publish_time(position))
        self._publish(channel, Message(position, body))
        return str(position)

    def inject(self, channel: str, message: object = None, *, raw: str | None = None) -> None:
        """Deliver anything as an element of `m`: a JSON-like value, or JSON text. No fault touches it."""
        text = json.dumps(message) if raw is None else raw
        json.loads(
            text
        )  # a ValueError here is the caller's; an answer that is no JSON at all is the fault `bad_json`
        self.stream.deliver(
            channel, Message(self.stream.next_position(), text.encode(), verbatim=True)
        )

    def poll(self, subscription: Subscription, cursor: Cursor) -> Answer:
        """Answer one subscribe request as of now; without messages it carries the cursor it was asked with."""
        return self.stream.read(subscription, cursor)

    def page(self, channel: str, window: Window) -> Page:
        """Return one page of a channel's actions."""
        return self._history.page(
            self._channels.get(channel, ChannelActions()), window, self.time.now()
        )

    def actions(self, channel: str) -> list[Action]:
        """Return everything stored in a channel, ascending by timetoken."""
        return list(self._channels.get(channel, ()))

    def live(self) -> int:
        """Return how many actions are stored."""
        return sum(map(len, self._channels.values()))

    def truth(self) -> Truth:
        """Return the counts a perfect tally shows now. Two actions of one identity count once: it is one user."""
        truth: Truth = {}
        for channel, actions in self._channels.items():
            for of in actions.identities():
                types = truth.setdefault(channel, {}).setdefault(of.message_timetoken, {})
                values = types.setdefault(of.type, {})
                values[of.value] = values.get(of.value, 0) + 1
        return truth

    def refuse(self, channels: Iterable[str] = (), groups: Iterable[str] = ()) -> None:
        """Answer 403 to whoever asks for one of these names from now on, and let everybody notice."""
        self.trouble.refuse(channels, groups)
        self.stream.wake_all()

    def demand_token(self, token: str | None) -> None:
        """Answer 403 to whoever sends another access token from now on, and let everybody notice; None wants none."""
        self.trouble.demand_token(token)
        self.stream.wake_all()

    def set_outage(self, kind: str | None, operations: Iterable[str] = OUTAGE_OPERATIONS) -> None:
        """Begin an outage (`OUTAGE_KINDS`) or end it with None, and let everybody notice."""
        self.trouble.set_outage(kind, operations)
        self.stream.wake_all()

    def advance(self, seconds: float) -> None:
        """Let time pass at once, and let everybody notice."""
        self.time.advance(seconds)
        self.stream.wake_all()
