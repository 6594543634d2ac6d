"""What PubNub's list of actions proves about entries.

The list shows what exists. A removal leaves no trace in it.
So an entry is over if the list, read completely, lacks it, and lacks it again later.
Lists lag, are cut short, and come back empty by mistake. Hence the conditions here.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from worker.domain.action import Identity
from worker.domain.position import Range, Timetoken, is_after, order


@dataclass(frozen=True, slots=True)
class Candidate:
    """One action about which PubNub's list and the tallies disagree."""

    identity: Identity
    action_timetoken: Timetoken


def age(candidate: Candidate) -> tuple[int, str]:
    """Return the sort key of a candidate: the oldest first."""
    return order(candidate.action_timetoken)


@dataclass(slots=True)
class Coverage:
    """What a first pass over the list has seen."""

    edges: list[Timetoken] = field(default_factory=list)
    """Where pages met, newest first.

    An edge is an action that was listed. So a second pass can begin at one above a candidate.
    """
    unseen: list[Range] = field(default_factory=list)
    """Ranges that were not read completely."""
    listed: int = 0
    """The number of items, on all pages together."""
    repeated: int = 0
    """Items that the next page listed again."""
    requests: int = 0

    @property
    def actions(self) -> int:
        """The number of items, each once."""
        return self.listed - self.repeated

    def has_seen(self, timetoken: Timetoken) -> bool:
        """Tell whether the list was read completely around this timetoken."""
        return not any(gap.covers(timetoken) for gap in self.unseen)

    def above(self, timetoken: Timetoken, steps: int) -> Timetoken | None:
        """Return the edge that many edges above a timetoken; None if there is none."""
        newer = bisect_left(self.edges, -int(timetoken), key=lambda edge: -int(edge))
        return self.edges[newer - steps] if newer >= steps else None


class Verdict(Enum):
    """What a second pass says of a candidate."""

    PRESENT = auto()
    """The list has it."""
    ABSENT = auto()
    """The list lacks it.

    One answer shows something as new and something older, but not this.
    Or nothing is left in the list to bracket it with.
    """
    UNPROVEN = auto()
    """Neither is proven. A later reconcile looks again."""


def judge(
    listed: Collection[Candidate],
    timetokens: Sequence[Timetoken],
    wanted: Iterable[Candidate],
) -> dict[Candidate, Verdict]:
    """Return what one answer proves of the wanted candidates.

    A candidate of which nothing is proven is left out.
    ``timetokens`` are those of all items, also of types that are not counted.
    """
    if not timetokens:
        return {}

    oldest = min(timetokens, key=order)
    newest = max(timetokens, key=order)
    verdicts = {}
    for candidate in wanted:
        if candidate in listed:
            verdicts[candidate] = Verdict.PRESENT
        elif _is_bracketed(candidate.action_timetoken, oldest, newest):
            verdicts[candidate] = Verdict.ABSENT
    return verdicts


def _is_bracketed(timetoken: Timetoken, oldest: Timetoken, newest: Timetoken) -> bool:
    # The older bracket must be strictly older: an answer may be cut off there, between two
    # actions of one timetoken.
    return is_after(timetoken, oldest) and not is_after(timetoken, newest)


@dataclass(frozen=True, slots=True)
class Proof:
    """A verdict, and when its answer was asked for and received.

    What was absent stays absent. What was present may have gone since.
    """

    verdict: Verdict
    asked_at: float
    """In seconds of the clock."""
    received_at: float


@dataclass(frozen=True, slots=True)
class Limit:
    """How much a reconcile may prune without ``--force``: a list may be wrong in an outage."""

    fraction: float
    floor: int

    def forbids(self, losses: int, entries: int) -> bool:
        """Tell whether the losses exceed the fraction of the entries **and** the floor.

        Example: with 0.2 and 20, a loss of 21 of 100 is forbidden, one of 3 of 3 is not.
        """
        return losses > self.floor and losses > self.fraction * entries
