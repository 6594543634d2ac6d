"""What a reader answers. Timetokens are text: 17 digits do not fit a float."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_NUMBER: Final = re.compile(r"-?[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)
Counts = dict[str, dict[str, int]]
"""type → value → count of one message. A count below 1 is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaction:
    """One value on one message, and who chose it."""

    type: str
    value: str
    count: int
    mine: bool = False
    """Whether ``me`` is among them."""
    mine_at: str | None = None
    """The action timetoken of ``me``."""
    first_at: str | None = None
    """The oldest action timetoken; None as for ``names``."""
    last_at: str | None = None
    """The newest action timetoken; None as for ``names``."""
    names: tuple[str, ...] = ()
    """The first users, oldest first.

    Empty if none were asked for. Of a message with more than 128 actions they are empty, too, if it
    has more than 128 values, or while the worker has not yet written who reacted.
    """

    @property
    def more(self) -> bool:
        """Whether more users than ``names`` reacted."""
        return self.count > len(self.names)


@dataclass(frozen=True, slots=True)
class Message:
    """The reactions to one message.

    Most first; those of one count by value, then by type.
    """

    timetoken: str
    reactions: tuple[Reaction, ...] = ()

    @property
    def total(self) -> int:
        """How many reactions there are."""
        return sum(reaction.count for reaction in self.reactions)

    @property
    def counts(self) -> Counts:
        """The counts alone: type → value → count."""
        counts: Counts = {}
        for reaction in self.reactions:
            counts.setdefault(reaction.type, {})[reaction.value] = reaction.count
        return counts

    def score(self, weights: Mapping[str, float]) -> float:
        """Return the sum of the weights of all actions.

        A value without a weight counts nothing.

        >>> message.score({"up": 1, "down": -1})
        """
        return sum(reaction.count * weights.get(reaction.value, 0) for reaction in self.reactions)

    def average(self, weights: Mapping[str, float] | None = None) -> float | None:
        """Return the mean weight of the actions that have one; None if none has.

        Without ``weights``, a value that is a number is its own weight: "4" counts 4.
        It is of all actions: a user with two values counts twice.
        """
        count, total = 0, 0.0
        for reaction in self.reactions:
            weight = _weight(reaction.value, weights)
            if weight is not None:
                count += reaction.count
                total += reaction.count * weight
        return total / count if count else None


def _weight(value: str, weights: Mapping[str, float] | None) -> float | None:
    if weights is not None:
        return weights.get(value)
    return float(value) if _NUMBER.fullmatch(value) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some messages of a channel, at one instant."""

    messages: Mapping[str, Message]
    """Every message that was asked for, in that order, by its timetoken."""
    position: str
    """The id of the journal's last entry: later changes follow it."""
    in_doubt: bool
    """Whether events may have been missed. The worker repairs the channel.

    False: no worker knows of any. ``heartbeat_age`` of the reader says whether one runs.
    """


@dataclass(frozen=True, slots=True)
class Reactor:
    """A user who chose a value, and when."""

    user: str
    at: str
    """The action timetoken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Who:
    """Some of the users who chose one value on one message."""

    reactors: tuple[Reactor, ...]
    """Oldest first. Those of one action timetoken are in the order of their UTF-8 bytes."""
    total: int
    """How many there were at that instant, in all pages."""
    after: str | None = None
    """Pass it for the next page; None if this is the last one."""


@dataclass(frozen=True, slots=True)
class TopMessage:
    """A message, and how many reactions were counted."""

    timetoken: str
    count: int


@dataclass(frozen=True, slots=True)
class RecentMessage:
    """A message, and when its reactions changed last, in milliseconds since 1970."""

    timetoken: str
    changed_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The count of one value on one message is another one.

    The count is absolute. Several changes of a tally may have become the newest one.
    """

    channel: str
    message_timetoken: str
    type: str
    value: str
    count: int
    """The new count; 0 if the value is gone."""
    position: str
    """Go on from here with ``since``, and no change is lost.

    When it moves, the counts that you hold are exactly those of the channel at this position.
    Changes that belong together have the position before them; the last one moves it.
    """

    @property
    def ends_message(self) -> bool:
        """Whether every count of the message is gone.

        It expired, or its channel was forgotten. Type and value are then empty, the count is 0.
        """
        return not (self.type or self.value)


@dataclass(slots=True)
class Reset:
    """What you hold of a channel is too old to be continued. Read it anew, with ``page``.

    The journal was trimmed, or Redis was emptied, restored or failed over.
    """

    channel: str
    position: str
    """Later changes follow it."""

    def continue_from(self, position: str) -> None:
        """Let the changes that follow be those after the page that you have read.

        Call it before you ask for the next change. Without it they begin at ``position``:
        some are in the page already. And if Redis goes back once more just then, nothing tells you.
        """
        self.position = position
