"""Who reacted to what, and what PubNub says happened to it."""

from dataclasses import dataclass
from enum import StrEnum

from worker.domain.position import Timetoken


class Origin(StrEnum):
    """How an event reached us."""

    LIVE = "live"
    BACKFILL = "backfill"
    RECONCILE = "reconcile"


@dataclass(frozen=True, slots=True)
class Identity:
    """One user's one reaction to one message: at most one of it is live at a time."""

    channel: str
    message_timetoken: Timetoken
    type: str
    value: str
    uuid: str


@dataclass(frozen=True, slots=True)
class Added:
    """Observed: the action was added at ``action_timetoken``; PubNub told at ``published``."""

    identity: Identity
    action_timetoken: Timetoken
    published: Timetoken


@dataclass(frozen=True, slots=True)
class Removed:
    """Observed: the action that was added at ``action_timetoken`` was removed; PubNub told at ``published``."""

    identity: Identity
    action_timetoken: Timetoken
    published: Timetoken


@dataclass(frozen=True, slots=True)
class Pruned:
    """Inferred, from a proof of absence: the action added at ``action_timetoken`` exists no longer."""

    identity: Identity
    action_timetoken: Timetoken


@dataclass(frozen=True, slots=True)
class Restored:
    """Inferred, from a proof of presence: the action exists although ``removed_through`` says it was removed."""

    identity: Identity
    action_timetoken: Timetoken
    removed_through: Timetoken


Observed = Added | Removed
Inferred = Pruned | Restored
Event = Observed | Inferred
