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

    Empty if none were asked for, or if the message has more than 128 actions.
    """

    @property
    def more(self) -> bool:
        """Whether more users than ``names`` reacted."""
        return self.count > len(self.names)


@dataclass(frozen=True, slots=True)
class Message:
    """The reactions to one message.

    Most first, then in the order in which they were counted first.
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
    """Whether events may have been missed. The worker repairs the channel."""


@dataclass(frozen=True, slots=True)
class RecentMessage:
    """A message, and when its reactions changed last, in milliseconds since 1970."""

    timetoken: str
    changed_at: int
