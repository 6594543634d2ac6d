"""Which shard a name belongs to: pure arithmetic, the same in every program.

A name has one of 4,096 buckets for ever, and a bucket one of the shards.
So a new shard takes whole buckets, and takes them from all others alike.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from itertools import takewhile
from typing import Final, Self

BUCKETS: Final = 4_096
MOST_SHARDS: Final = 1_024
_FORM: Final = re.compile(r"([0-9]{1,4})/([0-9]{1,4})", re.ASCII)
_WORDS: Final = 1 << 64
_FACTOR: Final = 2_862_933_555_777_941_757
"""Of the random numbers in "A Fast, Minimal Memory, Consistent Hash Algorithm"."""


def bucket_of(name: str) -> int:
    """Return the first three hexadecimal digits of the name's SHA-256."""
    digest = sha256(name.encode()).digest()
    return digest[0] << 4 | digest[1] >> 4


def shard_of(bucket: int, count: int) -> int:
    """Return the shard of a bucket, of so many shards."""
    *_, last = takewhile(lambda shard: shard < count, _visited(bucket))
    return last


def order(names: Iterable[str]) -> list[str]:
    """Sort names so that those which move together stand together.

    That holds for any number of shards: see ``_ranks``.
    """
    ranks = _ranks()
    return sorted(names, key=lambda name: (ranks[bucket_of(name)], name))


@lru_cache(maxsize=1)
def _ranks() -> Sequence[int]:
    """Return the place of each bucket in an order.

    Buckets that share a shard for longer, while shards are added, are nearer.
    So those that leave a shard, and went one way until then, are neighbours.
    """
    ordered = sorted(range(BUCKETS), key=_history)
    ranks = [0] * BUCKETS
    for rank, bucket in enumerate(ordered):
        ranks[bucket] = rank
    return ranks


def _history(bucket: int) -> tuple[int, ...]:
    """Return the shards that a bucket visits; an early move sorts last."""
    visited = takewhile(lambda shard: shard < MOST_SHARDS, _visited(bucket))
    return (*(-shard for shard in visited), -MOST_SHARDS)


def _visited(bucket: int) -> Iterator[int]:
    """Yield the shards that a bucket visits while shards are added.

    This is the jump consistent hash of Lamping and Veach.
    A bucket moves to shard ``n`` when it is added, or stays.
    """
    shard, key = 0, bucket
    while True:
        yield shard
        key = (key * _FACTOR + 1) % _WORDS
        shard = int((shard + 1) * ((1 << 31) / ((key >> 33) + 1)))


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several parts into which all names are divided."""

    index: int
    """From 0, as the ordinals of a StatefulSet."""
    count: int

    @classmethod
    def read(cls, text: str) -> Self:
        """Read ``0/3``.

        Raises:
            ValueError: it has another form.
        """
        match = _FORM.fullmatch(text.strip())
        if match is None:
            raise ValueError("give the number of the shard and how many there are, such as 0/3")
        index, count = map(int, match.groups())
        if not 1 <= count <= MOST_SHARDS:
            raise ValueError(f"there may be 1 to {MOST_SHARDS} shards, not {count}")
        if index >= count:
            last = count - 1
            raise ValueError(
                f"shards are counted from 0: of {count} they are 0/{count} to {last}/{count}"
            )
        return cls(index, count)

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def has(self, name: str) -> bool:
        """Tell whether a name belongs to this shard."""
        return _shards(self.count)[bucket_of(name)] == self.index


@lru_cache(maxsize=8)
def _shards(count: int) -> Sequence[int]:
    """Return the shard of each bucket."""
    return [shard_of(bucket, count) for bucket in range(BUCKETS)]


class Share:
    """The channels that a process keeps right: all of them, or those of its shard.

    A channel that is known only by a wildcard belongs to the shard of the wildcard,
    which alone hears of it. Any other one belongs to the shard of its own name.
    """

    def __init__(self, shard: Shard | None = None) -> None:
        self.shard = shard
        self._channels: frozenset[str] = frozenset()
        self._wildcards: frozenset[str] = frozenset()

    @property
    def index(self) -> int:
        """Which shard this process has; 0 if channels are not divided."""
        return self.shard.index if self.shard else 0

    @property
    def count(self) -> int:
        """How many shards there are; 1 if channels are not divided."""
        return self.shard.count if self.shard else 1

    def configure(self, channels: Iterable[str], wildcards: Iterable[str]) -> None:
        """Note which names the settings have, for all shards together."""
        self._channels = frozenset(channels)
        self._wildcards = frozenset(wildcards)

    def has(self, channel: str) -> bool:
        """Tell whether a channel belongs to this process."""
        if self.shard is None:
            return True
        return self.shard.has(self._deciding_name(channel))

    def own(self, channels: frozenset[str]) -> frozenset[str]:
        """Return the channels that belong to this process."""
        if self.shard is None:
            return channels
        return frozenset(filter(self.has, channels))

    def _deciding_name(self, channel: str) -> str:
        if channel in self._channels:
            return channel
        covering = filter(self._wildcards.__contains__, _wildcards_of(channel))
        return next(covering, channel)


def _wildcards_of(channel: str) -> Iterator[str]:
    """Yield ``a.b.*`` and ``a.*`` for ``a.b.c``."""
    parts = channel.split(".", 2)
    while len(parts) > 1:
        parts.pop()
        yield ".".join((*parts, "*"))
