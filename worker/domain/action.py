"""A user's reaction, and what happened to it.

Observed: PubNub said so. Inferred: a reconcile proved it from PubNub's list.
"""

from dataclasses import dataclass
from enum import StrEnum

from worker.domain.position import Timetoken


class Origin(StrEnum):
    """The way by which an event came."""

    LIVE = "live"
    BACKFILL = "backfill"
    RECONCILE = "reconcile"


@dataclass(frozen=True, slots=True)
class Identity:
    """One user's one reaction to one message.

    At most one action of an identity is live at a time.
    """

    channel: str
    message_timetoken: Timetoken
    type: str
    value: str
    uuid: str


@dataclass(frozen=True, slots=True)
class Added:
    """Observed: an action was added at ``action_timetoken``.

    PubNub published the event at ``published``.
    """

    identity: Identity
    action_timetoken: Timetoken
    published: Timetoken


@dataclass(frozen=True, slots=True)
class Removed:
    """Observed: an action was removed.

    ``action_timetoken`` is when the action had been added, not when it was removed.
    """

    identity: Identity
    action_timetoken: Timetoken
    published: Timetoken


@dataclass(frozen=True, slots=True)
class Pruned:
    """Inferred: the action exists no longer.

    It is proven absent from PubNub's list.
    """

    identity: Identity
    action_timetoken: Timetoken


@dataclass(frozen=True, slots=True)
class Restored:
    """Inferred: the action exists, although ``removed_through`` says that it was removed.

    It is proven present in PubNub's list.
    """

    identity: Identity
    action_timetoken: Timetoken
    removed_through: Timetoken


Observed = Added | Removed
Inferred = Pruned | Restored
Event = Observed | Inferred
