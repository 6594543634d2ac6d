"""What a list of actions proves about the entries we hold: who is missing from it, and what may be made of that.

A list shows what exists; a removal leaves no trace in it. So an entry is over if the list, read completely, has not got
it, and still has not a while later. Lists lag, are cut short, come back empty by mistake: hence the conditions here.
"""

from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from worker.domain.action import Identity
from worker.domain.position import Range, Timetoken, is_after, order

BUCKETS: Final = 1024
_MASK: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Candidate:
    """One action of one identity that list and tallies disagree about."""

    identity: Identity
    action_timetoken: Timetoken


class RollCall:
    """The entries that were live before the list was read, in nine bytes each; whoever is listed answers.

    An entry is known by a 64-bit hash, keyed anew in each process: nobody can make two collide, and where two do by
    chance (once in some hundred thousand runs over ten million entries), one that is over is missed until the next run.
    """

    def __init__(self) -> None:
        self._buckets: dict[int, array[int]] = {}
        self._answered: dict[int, bytearray] = {}

    def enter(self, place: tuple[str, str, str]) -> None:
        """Enter an entry: message timetoken, field, action timetoken. Entering it twice is entering it once."""
        key = hash(place) & _MASK
        self._buckets.setdefault(key % BUCKETS, array("Q")).append(key)

    def close(self) -> None:
        """Take no more entries; from here on they may answer."""
        for number, bucket in self._buckets.items():
            self._buckets[number] = array("Q", sorted(set(bucket)))
            self._answered[number] = bytearray(len(self._buckets[number]))

    def answer(self, place: tuple[str, str, str]) -> bool:
        """Note that the list has it; tell whether it was entered."""
        bucket, index = self._find(place)
        if index is None:
            return False
        self._answered[bucket][index] = 1
        return True

    def is_missing(self, place: tuple[str, str, str]) -> bool:
        """Tell whether it was entered, and the list has not got it."""
        bucket, index = self._find(place)
        return index is not None and not self._answered[bucket][index]

    @property
    def missing(self) -> int:
        """How many have not answered."""
        return sum(answered.count(0) for answered in self._answered.values())

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def _find(self, place: tuple[str, str, str]) -> tuple[int, int | None]:
        key = hash(place) & _MASK
        number = key % BUCKETS
        bucket = self._buckets.get(number, ())
        index = bisect_left(bucket, key)
        return number, index if index < len(bucket) and bucket[index] == key else None


@dataclass(slots=True)
class Coverage:
    """How far a first look came: which stretches it did not see, and where its pages met.

    A page's edge is an action that was listed, so a second look can begin above a candidate with something it knows.
    """

    edges: list[Timetoken] = field(default_factory=list)
    """Newest first."""
    unseen: list[Range] = field(default_factory=list)
    listed: int = 0
    """How many items it was shown."""
    requests: int = 0

    def has_seen(self, timetoken: Timetoken) -> bool:
        """Tell whether the list was read completely around that timetoken."""
        return not any(stretch.covers(timetoken) for stretch in self.unseen)

    def above(self, timetoken: Timetoken, steps: int) -> Timetoken | None:
        """Return the edge that many edges above that timetoken, or None where there is no such edge."""
        newer = bisect_left(self.edges, -int(timetoken), key=lambda edge: -int(edge))
        return self.edges[newer - steps] if newer >= steps else None


class Verdict(Enum):
    """What a second look says of a candidate."""

    PRESENT = auto()
    """It is listed."""
    ABSENT = auto()
    """One answer shows something as new and something older, and not this; or nothing is left to bracket it with."""
    UNPROVEN = auto()
    """Nothing can be said; it must be looked at again."""


def judge(
    listed: Collection[Candidate], timetokens: Sequence[Timetoken], wanted: Iterable[Candidate]
) -> dict[Candidate, Verdict]:
    """Return what one answer proves: those it lists are present; those between two of its items are absent.

    ``timetokens`` are those of all its items, also of those that are not counted. The older one must be strictly older,
    for an answer is cut off at its older end, and there between two actions of one timetoken, maybe.
    """
    if not timetokens:
        return {}
    oldest, newest = min(timetokens, key=order), max(timetokens, key=order)
    verdicts = {}
    for candidate in wanted:
        at = candidate.action_timetoken
        if candidate in listed:
            verdicts[candidate] = Verdict.PRESENT
        elif not is_after(at, newest) and is_after(at, oldest):
            verdicts[candidate] = Verdict.ABSENT
    return verdicts


@dataclass(frozen=True, slots=True)
class Proof:
    """A verdict, and when the answer it rests on was asked for, in seconds of the clock.

    What was absent stays absent; what was present may have gone since.
    """

    verdict: Verdict
    asked_at: float


@dataclass(frozen=True, slots=True)
class Limit:
    """How much a reconcile may take away without being told to: an outage must not be read as a mass un-react."""

    fraction: float
    floor: int

    def forbids(self, losses: int, entries: int) -> bool:
        """Tell whether so many losses among so many entries are more than the limit **and** more than the floor."""
        return losses > self.floor and losses > self.fraction * entries
