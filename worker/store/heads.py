"""The newest journal entry of each channel."""

from collections.abc import Collection, Mapping
from heapq import nlargest
from typing import Any

from reaction_tally.journal import START, stream_order
from reaction_tally.keys import is_position
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
    async def lost(self, heads: Mapping[str, str]) -> set[str]:
        """Return the channels whose journal lacks the entry of this id."""
        lost: set[str] = set()
        for batch in batched(sorted(heads), HASH_BATCH):
            held = await self._redis.mget(list(map(self._keys.head, batch)))
            pairs = zip(batch, held, strict=True)
            others = {channel: head for channel, head in pairs if head != heads[channel]}
            lost |= await self._without_entry(others, heads)
        return lost

    async def _without_entry(
        self,
        held: Mapping[str, str | None],
        heads: Mapping[str, str],
    ) -> set[str]:
        if not held:
            return set()
        pipe = self._redis.pipeline(transaction=False)
        for channel in held:
            pipe.xrange(self._keys.journal(channel), heads[channel], "+", count=1)
        # A journal of the wrong type proves nothing,
        # and concerns its channel alone.
        answers = await pipe.execute(raise_on_error=False)
        pairs = zip(held.items(), answers, strict=True)
        return {
            channel
            for (channel, head), entries in pairs
            if not _is_proven(heads[channel], head, entries)
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
