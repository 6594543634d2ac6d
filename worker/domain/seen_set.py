"""The live entries of a channel, and which of them PubNub's list has shown."""

from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final

from worker.domain.position import Timetoken

BUCKET_BITS: Final = 54
"""The lower bits of a 64-bit hash. The other ten are the number of its bucket."""
MAX_PENDING: Final = 65_536
"""Hashes that wait to be marked together."""

EntryKey = tuple[str, str, Timetoken]
"""A live entry: message timetoken, field in Redis, action timetoken."""


class SeenSet:
    """The entries that were live before the list was read, in nine bytes each.

    First add entries, then close the set, then mark what the list shows.
    What stays unseen is a candidate for a prune.

    Eight bytes are a hash, one byte says whether the entry was seen.
    No user can make two hashes collide: Python keys them anew in each process.
    If two collide by chance, a removed entry stays until the next run.
    That happens once in some hundred thousand runs over ten million entries.

    Marks are made together, in the order of the hashes.
    One search at a time, all over a large memory, would be slow.
    """

    def __init__(self) -> None:
        self._buckets: defaultdict[int, array[int]] = defaultdict(_no_hashes)
        self._seen: dict[int, bytearray] = {}
        self._pending = _no_hashes()

    def add(self, entry_keys: Iterable[EntryKey]) -> None:
        """Add entries. The same entry twice counts once."""
        buckets = self._buckets
        for key in map(hash, entry_keys):
            buckets[key >> BUCKET_BITS].append(key)

    def close(self) -> None:
        """End adding. From here on entries may be marked."""
        for number, bucket in self._buckets.items():
            hashes = array("q", sorted(set(bucket)))
            self._buckets[number] = hashes
            self._seen[number] = bytearray(len(hashes))

    def mark_seen(self, entry_keys: Iterable[EntryKey]) -> None:
        """Note that the list has these entries, whether they were added or not."""
        self._pending.extend(map(hash, entry_keys))
        if len(self._pending) >= MAX_PENDING:
            self._mark_pending()

    def has(self, entry_keys: Iterable[EntryKey]) -> list[bool]:
        """Tell of each entry whether it was added."""
        return [index is not None for _, index in self._positions(entry_keys)]

    def are_unseen(self, entry_keys: Iterable[EntryKey]) -> list[bool]:
        """Tell of each entry whether it was added, and the list has not shown it."""
        self._mark_pending()
        seen = self._seen
        return [
            index is not None and not seen[number][index]
            for number, index in self._positions(entry_keys)
        ]

    @property
    def unseen(self) -> int:
        """The number of entries that the list has not shown."""
        self._mark_pending()
        return sum(seen.count(0) for seen in self._seen.values())

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def _positions(self, entry_keys: Iterable[EntryKey]) -> Iterator[tuple[int, int | None]]:
        """Yield the number of each entry's bucket, and its index there, or None."""
        for key in map(hash, entry_keys):
            number = key >> BUCKET_BITS
            bucket = self._buckets.get(number, ())
            index = bisect_left(bucket, key)
            is_added = index < len(bucket) and bucket[index] == key
            yield number, index if is_added else None

    def _mark_pending(self) -> None:
        """Mark what is pending, one bucket after the other."""
        hashes = sorted(self._pending)
        self._pending = _no_hashes()
        for number, keys in groupby(hashes, lambda key: key >> BUCKET_BITS):
            if number in self._seen:
                self._mark_bucket(number, keys)

    def _mark_bucket(self, number: int, keys: Iterable[int]) -> None:
        bucket = self._buckets[number]
        seen = self._seen[number]
        for key in keys:
            index = bisect_left(bucket, key)
            if index < len(bucket) and bucket[index] == key:
                seen[index] = 1


def _no_hashes() -> "array[int]":
    return array("q")
