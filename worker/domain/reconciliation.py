"""What a list of actions proves about the entries we hold: who is missing from it, and what may be made of that.

A list shows what exists; a removal leaves no trace in it. So an entry is over if the list, read completely, has not got
it, and still has not a while later. Lists lag, are cut short, come back empty by mistake: hence the conditions here.
"""

from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from worker.domain.action import Identity
from worker.domain.position import Range, Timetoken, is_after, order

BUCKET_BITS: Final = 54
"""Bits of a hash that do not say in which bucket it lies: there are 1024 of these."""
ANSWERS_KEPT: Final = 65_536
"""Answers that are noted together."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One action of one identity that list and tallies disagree about."""

    identity: Identity
    action_timetoken: Timetoken


EntryKey = tuple[str, str, Timetoken]
"""Where an entry lies, and what is live there: message timetoken, field, action timetoken."""


class SeenSet:
    """The entries that were live before the list was read, in nine bytes each; whoever is listed answers.

    An entry is known by a 64-bit hash, keyed anew in each process: nobody can make two collide, and where two do by
    chance (once in some hundred thousand runs over ten million entries), one that is over is missed until the next run.

    Answers are kept until there are many and then noted in the order of the seen: to look for each at once, all over
    the memory of a long one, takes longer than all else.
    """

    def __init__(self) -> None:
        self._buckets: defaultdict[int, array[int]] = defaultdict(_keys)
        self._answered: dict[int, bytearray] = {}
        self._said = _keys()

    def add(self, entry_keys: Iterable[EntryKey]) -> None:
        """Enter entries. Entering one twice is entering it once."""
        buckets = self._buckets
        for key in map(hash, entry_keys):
            buckets[key >> BUCKET_BITS].append(key)

    def close(self) -> None:
        """Take no more entries; from here on they may answer."""
        for number, bucket in self._buckets.items():
            self._buckets[number] = array("q", sorted(set(bucket)))
            self._answered[number] = bytearray(len(self._buckets[number]))

    def mark_seen(self, entry_keys: Iterable[EntryKey]) -> None:
        """Note that the list has these, whether they were entered or not."""
        self._said.extend(map(hash, entry_keys))
        if len(self._said) >= ANSWERS_KEPT:
            self._note()

    def has(self, entry_keys: Iterable[EntryKey]) -> list[bool]:
        """Tell of each whether it was entered."""
        return [index is not None for _, index in self._find(entry_keys)]

    def are_unseen(self, entry_keys: Iterable[EntryKey]) -> list[bool]:
        """Tell of each whether it was entered, and the list has not got it."""
        self._note()
        answered = self._answered
        return [
            index is not None and not answered[number][index]
            for number, index in self._find(entry_keys)
        ]

    @property
    def unseen(self) -> int:
        """How many have not answered."""
        self._note()
        return sum(answered.count(0) for answered in self._answered.values())

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def _find(self, entry_keys: Iterable[EntryKey]) -> Iterator[tuple[int, int | None]]:
        """Yield the number of each one's bucket, and its index there if it was entered."""
        for key in map(hash, entry_keys):
            number = key >> BUCKET_BITS
            bucket = self._buckets.get(number, ())
            index = bisect_left(bucket, key)
            yield number, index if index < len(bucket) and bucket[index] == key else None

    def _note(self) -> None:
        said, self._said = sorted(self._said), _keys()
        start = 0
        while start < len(said):
            number = said[start] >> BUCKET_BITS
            end = bisect_left(said, number + 1 << BUCKET_BITS, start)
            if bucket := self._buckets.get(number):
                answered = self._answered[number]
                for key in said[start:end]:
                    index = bisect_left(bucket, key)
                    if index < len(bucket) and bucket[index] == key:
                        answered[index] = 1
            start = end


def _keys() -> "array[int]":
    return array("q")


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


def all_lie_in(range: Range, timetokens: Collection[Timetoken]) -> bool:
    """Tell whether a range covers all of these, at little cost each; of those of several lengths it does not say so.

    Timetokens of one length are ordered as the texts they are.
    """
    if range == Range() or not timetokens:
        return True
    return (
        len(set(map(len, timetokens))) == 1
        and range.covers(min(timetokens))
        and range.covers(max(timetokens))
    )


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
