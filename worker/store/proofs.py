"""When each channel was last compared with PubNub's list, and nothing was in doubt."""

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from worker.store.batch import batched
from worker.store.table import Table, retried

CHANNELS_AT_ONCE: Final = 1_000
"""Channels of one round trip."""
NINETY_NINE: Final = 0.99


@dataclass(frozen=True, slots=True)
class Proof:
    """What Redis knows of one channel. Times are milliseconds since 1970; 0: never."""

    recent: int = 0
    """Up to when its recent past is proven, by PubNub's clock."""
    whole: int = 0
    """Up to when everything is proven, by PubNub's clock."""
    changed: int = 0
    """When a tally changed last, by the clock of Redis unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Ages:
    """How long ago channels were proven, in seconds; 0 if none was."""

    longest: float
    ninety_nine: float
    """Of 99 in a hundred channels, not longer ago than this."""
    channels: int
    """Channels that were proven at least once."""


class Proofs(Table):
    """The sorted sets ``proven`` and ``proven:full``: channel → up to when it is proven."""

    @retried
    async def note(
        self,
        channel: str,
        until: int,
        since: int | None = None,
        whole: int | None = None,
    ) -> None:
        """Note that a look from ``since`` to ``until`` left nothing in doubt.

        Times are milliseconds since 1970, by PubNub's clock; None: everything before.
        A look at a part counts only if it reaches back to the last proof.
        A look at everything proves it up to ``whole`` (default: ``until``).
        """
        proofs = {self._keys.proven: until}
        if since is None:
            proofs[self._keys.proven_full] = until if whole is None else whole
        else:
            proof = await self.read(channel)
            if since > max(proof.recent, proof.whole):
                return
        pipe = self._redis.pipeline(transaction=False)
        for key, proven in proofs.items():
            # Another worker may have been later.
            pipe.zadd(key, {channel: proven}, gt=True)
        await pipe.execute()

    @retried
    async def set_back(self, channel: str, until: int) -> None:
        """Let the newest proof of everything go up to then at the latest."""
        await self._redis.zadd(
            self._keys.proven_full,
            {channel: until},
            xx=True,
            lt=True,
        )

    @retried
    async def forget(self, channel: str) -> None:
        """Forget a channel."""
        pipe = self._redis.pipeline(transaction=False)
        for key in (self._keys.proven, self._keys.proven_full):
            pipe.zrem(key, channel)
        await pipe.execute()

    async def read(self, channel: str) -> Proof:
        """Return what is known of a channel."""
        proofs = await self._read_batch([channel])
        return proofs[channel]

    async def scan(
        self,
        channels: Collection[str],
        ahead: int = 0,
    ) -> AsyncIterator[tuple[str, Proof]]:
        """Yield what is known of each of these channels.

        ``ahead`` is how many milliseconds PubNub's clock is ahead of that of Redis.
        """
        for batch in batched(sorted(channels), CHANNELS_AT_ONCE):
            proofs = await self._read_batch(batch, ahead)
            for item in proofs.items():
                yield item

    @retried
    async def _read_batch(
        self,
        channels: Sequence[str],
        ahead: int = 0,
    ) -> dict[str, Proof]:
        keys = self._keys
        pipe = self._redis.pipeline(transaction=False)
        pipe.zmscore(keys.proven, channels)
        pipe.zmscore(keys.proven_full, channels)
        pipe.mget(list(map(keys.head, channels)))
        recent, whole, heads = await pipe.execute()
        proofs: dict[str, Proof] = {}
        rows = zip(channels, recent, whole, heads, strict=True)
        for channel, at, full, head in rows:
            proofs[channel] = Proof(
                int(at or 0),
                int(full or 0),
                _milliseconds(head) + ahead,
            )
        return proofs

    @retried
    async def unproven(self, now: int, *, is_whole: bool) -> Ages:
        """Return how long ago channels were proven, at ``now`` in milliseconds.

        Its cost does not grow with the number of channels.
        """
        key = self._keys.proven_full if is_whole else self._keys.proven
        channels = int(await self._redis.zcard(key))
        rank = int(channels * (1 - NINETY_NINE))
        longest = await self._age(key, 0, now)
        ninety_nine = await self._age(key, rank, now)
        return Ages(longest, ninety_nine, channels)

    @retried
    async def unproven_of(
        self,
        channels: Collection[str],
        now: int,
        *,
        is_whole: bool,
    ) -> Ages:
        """Return the same of these channels alone; its cost grows with their number."""
        key = self._keys.proven_full if is_whole else self._keys.proven
        proven: list[float] = []
        for batch in batched(sorted(channels), CHANNELS_AT_ONCE):
            scores = await self._redis.zmscore(key, batch)
            proven += [score for score in scores if score is not None]
        if not proven:
            return Ages(0.0, 0.0, 0)
        proven.sort()
        rank = int(len(proven) * (1 - NINETY_NINE))
        longest, ninety_nine = (_age(proven[at], now) for at in (0, rank))
        return Ages(longest, ninety_nine, len(proven))

    async def _age(self, key: str, rank: int, now: int) -> float:
        """Return the age of the channel at a rank, the oldest first, in seconds."""
        scored = await self._redis.zrange(key, rank, rank, withscores=True)
        proven = max(dict(scored).values(), default=now)
        return _age(float(proven), now)


def _age(proven: float, now: int) -> float:
    """Return the seconds since then; both are milliseconds."""
    return max(0.0, (now - proven) / 1000)


def _milliseconds(head: Any) -> int:
    """Return the time in the id of a journal entry."""
    # A key that another program wrote says nothing.
    # Its channel's next repair names it.
    if not isinstance(head, str):
        return 0
    milliseconds = head.partition("-")[0]
    if not milliseconds.isdecimal():
        return 0
    return int(milliseconds)
