"""The newest journal entry of each channel."""

from collections.abc import Collection, Mapping, Sequence
from heapq import nlargest
from typing import Any

from reaction_tally.journal import START, stream_order
from reaction_tally.keys import is_position
from worker.store.acknowledged import Position
from worker.store.batch import batched
from worker.store.table import HASH_BATCH, Table, retried


class Heads(Table):
    """The keys ``head``, and the journal's entries from there on."""

    @retried
    async def read(self, channels: Collection[str]) -> dict[str, str]:
        """Return the head of each channel; ``START`` if it has none."""
        heads: dict[str, str] = {}
        for batch in batched(sorted(channels), HASH_BATCH):
            held = await self._redis.mget(list(map(self._keys.head, batch)))
            heads.update(zip(batch, map(_position, held), strict=True))
        return heads

    @retried
    async def lost(self, positions: Collection[Position]) -> set[str]:
        """Return the channels whose journal lacks one of these entries."""
        lost: set[str] = set()
        for batch in batched(sorted(positions), HASH_BATCH):
            keys = [self._keys.head(channel) for channel, _ in batch]
            heads = await self._redis.mget(keys)
            pairs = zip(batch, heads, strict=True)
            # Most are the head itself, and need no journal.
            others = [(position, head) for position, head in pairs if head != position[1]]
            lost |= await self._without_entry(others)
        return lost

    async def _without_entry(
        self,
        others: Sequence[tuple[Position, str | None]],
    ) -> set[str]:
        """Return the channels whose journal lacks the entry; each has another head."""
        pipe = self._redis.pipeline(transaction=False)
        for (channel, known), _ in others:
            pipe.xrange(self._keys.journal(channel), known, "+", count=1)
        # A journal of the wrong type proves nothing,
        # and concerns its channel alone.
        answers = await pipe.execute(raise_on_error=False)
        return {
            channel
            for ((channel, known), head), entries in zip(others, answers, strict=True)
            if not _is_proven(known, head, entries)
        }


def _position(head: str | None) -> str:
    """Return a head; another program may have written something else."""
    if head and is_position(head):
        return head
    return START


def latest(heads: Mapping[str, str], limit: int) -> list[str]:
    """Return the channels that changed last, the newest first."""

    def written(channel: str) -> tuple[int, int]:
        return stream_order(heads[channel])

    return nlargest(limit, heads, key=written)


def _is_proven(known: str, head: str | None, entries: Any) -> bool:
    """Tell whether the journal had this entry.

    ``entries`` is the first one from there on.
    A newer head alone is no proof: it may have been written after a loss.
    An entry that was trimmed is proven by the ``after`` of a later one.
    What another program wrote is no proof.
    """
    newest = head or START
    try:
        for first, fields in entries:
            newest = known if first == known else fields["after"]
        return stream_order(newest) >= stream_order(known)
    except (KeyError, TypeError, ValueError):
        return False
