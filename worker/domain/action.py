"""A user's reaction, and what happened to it.

Observed: PubNub said so. Inferred: a reconcile proved it from PubNub's list.

These values are made for every event. A struct is made ten times faster than a dataclass.
"""

from enum import StrEnum

from msgspec import Struct

from worker.domain.position import Timetoken


class Origin(StrEnum):
    """The way by which an event came."""

    LIVE = "live"
    BACKFILL = "backfill"
    RECONCILE = "reconcile"


class Identity(Struct, frozen=True, gc=False):
    """One user's one reaction to one message.

    At most one action of an identity is live at a time.
    """

    channel: str
    message_timetoken: Timetoken
    type: str
    value: str
    uuid: str


class Added(Struct, frozen=True, gc=False):
    """Observed: an action was added at ``action_timetoken``.

    PubNub published the event at ``published``.
    """

    identity: Identity
    action_timetoken: Timetoken
    published: Timetoken


class Removed(Struct, frozen=True, gc=False):
    """Observed: an action was removed.

    ``action_timetoken`` is when the action had been added, not when it was removed.
    """

    identity: Identity
    action_timetoken: Timetoken
    published: Timetoken


class Pruned(Struct, frozen=True, gc=False):
    """Inferred: the action exists no longer.

    It is proven absent from PubNub's list.
    """

    identity: Identity
    action_timetoken: Timetoken

    @property
    def published(self) -> Timetoken:
        """The time of its action: nothing was published."""
        return self.action_timetoken


class Restored(Struct, frozen=True, gc=False):
    """Inferred: the action exists, although ``removed_through`` says that it was removed.

    It is proven present in PubNub's list.
    """

    identity: Identity
    action_timetoken: Timetoken
    removed_through: Timetoken

    @property
    def published(self) -> Timetoken:
        """The time of its action: nothing was published."""
        return self.action_timetoken


Observed = Added | Removed
Inferred = Pruned | Restored
Event = Observed | Inferred
