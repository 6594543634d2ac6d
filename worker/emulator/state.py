"""The emulator without HTTP, loop, sleep and clock of its own."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from worker.emulator.access import Access
from worker.emulator.actions import Action, Identity
from worker.emulator.faults import Fault, Faults
from worker.emulator.publisher import Publisher
from worker.emulator.storage import Storage
from worker.emulator.stream import Answer, Cursor, Stream
from worker.emulator.subscription import Subscription
from worker.emulator.timetokens import Clock, Timetokens
from worker.emulator.trouble import Trouble


@dataclass(frozen=True, slots=True)
class Change:
    """The actions of an addition or removal; not ``published`` for a 207."""

    actions: tuple[Action, ...]
    published: bool


class State:
    """One keyset of PubNub, driven by calls.

    The same clock, random source and calls give the same answers. A
    refused call raises ``RefusedError`` with PubNub's reply.
    """

    def __init__(
        self,
        clock: Clock,
        random: Random,
        faults: Mapping[str, float] | None = None,
        subscribe_key: str = "demo",
    ) -> None:
        """``subscribe_key`` only appears in messages."""
        self.time = Timetokens(clock)
        self.faults = Faults(faults or {}, random)
        self.storage = Storage(self.time, self.faults)
        self.stream = Stream(self.time, self.faults)
        self.publisher = Publisher(self.stream, self.faults, subscribe_key)
        self.access = Access(self.time)
        self.trouble = Trouble(self.faults, self.stream.listeners.call_all)
        self.groups = self.stream.groups
        self.publish = self.publisher.message
        self.page = self.storage.page
        self.list_nothing = self.storage.list_nothing
        self.truth = self.storage.truth
        self.refuse = self.trouble.refuse
        self.demand_token = self.trouble.demand_token
        self.switch_persistence = self.trouble.switch_persistence
        self.set_outage = self.trouble.set_outage

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
        """Store one action, and publish it.

        ``at`` is a timetoken of the caller's choice, for an old history.
        The last of the change's actions is the one in the answer.
        """
        identity = Identity(message_timetoken, type, value, uuid)
        stored = self.storage.add(channel, identity, at)
        return self._announce("added", channel, stored, published=published)

    def remove(
        self,
        channel: str,
        message_timetoken: str,
        action_timetoken: int,
        uuid: str,
        *,
        published: bool = True,
    ) -> Change:
        """Remove a user's actions with this timetoken, with one event each."""
        removed = self.storage.remove(channel, message_timetoken, action_timetoken, uuid)
        return self._announce("removed", channel, removed, published=published)

    def _announce(
        self,
        event: str,
        channel: str,
        actions: list[Action],
        *,
        published: bool,
    ) -> Change:
        is_published = published and not self.faults.strikes(Fault.UNPUBLISHED)
        for action in actions if is_published else ():
            self.publisher.event(event, channel, action)
        return Change(tuple(actions), is_published)

    @property
    def published(self) -> int:
        """The number of published messages and events."""
        return self.publisher.published

    def inject(
        self,
        channel: str,
        message: object = None,
        *,
        raw: str | None = None,
    ) -> None:
        """Deliver any JSON, or ``raw`` JSON text, as an element of ``m``."""
        text = json.dumps(message) if raw is None else raw
        json.loads(text)
        self.publisher.inject(channel, text.encode())

    def poll(self, subscription: Subscription, cursor: Cursor) -> Answer:
        """Answer one subscribe request as of now."""
        return self.stream.read(subscription, cursor)

    def actions(self, channel: str) -> list[Action]:
        """Return all actions of a channel, ascending by timetoken."""
        return list(self.storage.channel(channel).ordered)

    def live(self) -> int:
        """Return the number of stored actions."""
        return len(self.storage)

    def advance(self, seconds: float) -> None:
        """Let time pass at once."""
        self.time.advance(seconds)
        self.stream.listeners.call_all()
