"""What is asked of a reconcile, and what reconcile and verify report."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter, itemgetter
from typing import Final, Self

from worker.applying.slots import Slots, Urgency
from worker.domain.position import Timetoken
from worker.errors import ExitCode
from worker.store.audit import Inconsistency
from worker.store.pending_repairs import Marks, is_coming

CHANNEL_CONCURRENCY: Final = 1_000
"""Channels that a command compares at once. Most of them hold no slot."""
COUNTED: Final = (
    *("listed", "entries", "added", "pruned", "restored", "rebuilt"),
    *("unproven", "refused", "owed", "requests"),
)
"""What a reconcile counts in a channel."""


@dataclass(slots=True, kw_only=True)
class ReconcileReport:
    """What a reconcile did in one channel.

    After a dry run: what it would have done.
    """

    channel: str
    listed: int = 0
    """Actions PubNub listed in the range."""
    entries: int = 0
    """Entries that were live, and old enough to be judged."""
    added: int = 0
    pruned: int = 0
    restored: int = 0
    rebuilt: int = 0
    """Messages whose counts or index were lost or changed."""
    unproven: int = 0
    """Entries neither present nor absent for sure."""
    refused: int = 0
    """Entries that were not pruned, although they are absent."""
    reason: str = ""
    """Why they were not pruned."""
    owed: int = 0
    """Marks that are left."""
    requests: int = 0
    proven_until: Timetoken = ""
    """Older actions were compared; the present, less the settle time."""
    failure: str = ""
    """Why the reconcile came to no end; empty if it did."""
    exit_code: ExitCode = ExitCode.DONE

    def add(self, piece: Self) -> None:
        """Add what was done in another piece of the channel."""
        for name, count in piece.counts.items():
            setattr(self, name, count + getattr(self, name))
        self.reason = self.reason or piece.reason
        self.proven_until = self.proven_until or piece.proven_until

    @property
    def counts(self) -> Mapping[str, int]:
        """All that is counted in a channel, by name."""
        counts = attrgetter(*COUNTED)(self)
        return dict(zip(COUNTED, counts, strict=True))

    @property
    def facts(self) -> Mapping[str, object]:
        """What is known at the end, for the log; a text that is empty says nothing."""
        texts = {"reason": self.reason, "proven_until": self.proven_until}
        given = filter(itemgetter(1), texts.items())
        return {"channel": self.channel, **self.counts, **dict(given)}

    @property
    def has_changes(self) -> bool:
        """Whether anything in Redis was changed."""
        return any((self.added, self.pruned, self.restored, self.rebuilt))

    @property
    def is_in_doubt(self) -> bool:
        """Whether something could not be proven, or was not allowed."""
        return bool(self.unproven or self.refused)

    @property
    def is_settled(self) -> bool:
        """Whether nothing must be looked at again.

        A restored action must: its removal may still be on its way.
        """
        return not (self.is_in_doubt or self.restored)

    @property
    def result(self) -> str:
        """How the reconcile ended, in a word."""
        if self.refused:
            return "refused"
        return "unproven" if self.unproven else "settled"


@dataclass(frozen=True, slots=True)
class ReconcileOptions:
    """What is asked of a reconcile."""

    force: bool = False
    """Prune however much it is."""
    dry_run: bool = False
    """Write nothing."""
    urgency: Urgency = Urgency.ROUND
    """How soon it gets a slot."""


@dataclass(frozen=True, slots=True)
class ReconcilePolicy:
    """What every reconcile keeps to."""

    settle_seconds: float
    clock: Callable[[], float]
    slots: Slots
    recheck: Callable[[str, int], int]
    """Returns a proof of a channel of which a look is due soon."""
    is_worker: bool = False
    """Leave forgotten channels alone, and resume interrupted looks.

    A command takes any channel, and looks at all of it.
    """


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Discrepancy:
    """One tally that differs from PubNub's list."""

    channel: str
    message_timetoken: Timetoken
    type: str
    value: str
    missing: int
    """Users who are listed and not counted."""
    surplus: int
    """Users who are counted and not listed."""


@dataclass(frozen=True, slots=True)
class LateRepair:
    """What a channel is owed, and no worker repairs by itself in time."""

    since: int
    """Milliseconds since 1970; 0: unknown."""
    causes: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class VerifyReport:
    """What was found."""

    channels: int = 0
    listed: int = 0
    entries: int = 0
    discrepancies: list[Discrepancy] = field(default_factory=list)
    owed: list[Discrepancy] = field(default_factory=list)
    """Those of channels that are under repair; they are no differences."""
    under_repair: dict[str, int] = field(default_factory=dict)
    """Channel whose repair is coming → since when: milliseconds since 1970."""
    late: dict[str, LateRepair] = field(default_factory=dict)
    """Channels whose repair is late, or waits for a person. What differs is a difference."""
    unknown: list[str] = field(default_factory=list)
    """Channels that were named and that no worker has ever followed."""
    has_worker: bool = False
    """Whether a worker uses the namespace now."""
    flaws: list[Inconsistency] = field(default_factory=list)
    unproven: int = 0
    """Entries, or stretches of the list, that are in doubt."""
    failures: dict[str, str] = field(default_factory=dict)
    """Channel → why its comparison did not come to its end."""
    requests: int = 0
    is_sample: bool = False
    """Whether some stretches were left out, as was asked."""
    are_named: bool = False
    """Whether the channels were named, and not found."""

    def set_apart(self, repairs: Mapping[str, Marks], now: int) -> None:
        """Set apart the discrepancies of channels whose repair is coming.

        ``now`` is in milliseconds since 1970, by Redis's clock.
        """
        for channel, marks in repairs.items():
            since = min(filter(None, marks.values()), default=0)
            if is_coming(marks, now):
                self.under_repair[channel] = since
            else:
                self.late[channel] = LateRepair(since, tuple(sorted(marks)))
        found = self.discrepancies
        coming = self.under_repair.keys()
        self.owed = [item for item in found if item.channel in coming]
        self.discrepancies = [item for item in found if item.channel not in coming]

    @property
    def is_whole(self) -> bool:
        """Whether everything was compared, and nothing is in doubt."""
        return not any((self.is_sample, self.unproven, self.failures))

    @property
    def has_compared_nothing(self) -> bool:
        """Whether all that is listed was left out.

        Or only unknown channels were named.
        """
        if self.entries or self.discrepancies or self.owed:
            return False
        return bool(self.listed or self.unknown)

    @property
    def is_exact(self) -> bool:
        """Whether nothing differs that is not owed, and nothing is in doubt."""
        return self.exit_code is ExitCode.DONE

    @property
    def exit_code(self) -> ExitCode:
        """How the command ends."""
        if self.discrepancies or self.flaws:
            return ExitCode.DIFFERENCES
        if self.unproven or self.failures:
            return ExitCode.FAILED
        # Whoever names a channel expects something of it.
        # A sample may hold nothing.
        is_expected = self.are_named and not self.is_sample
        if is_expected and self.has_compared_nothing:
            return ExitCode.FAILED
        return ExitCode.DONE
