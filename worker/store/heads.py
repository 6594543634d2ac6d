"""The newest journal entry of each channel."""

from collections.abc import Mapping, Sequence
from typing import Any

from worker.store.batch import batched
from worker.store.journal import START, stream_order
from worker.store.table import HASH_BATCH, Table, retried


class Heads(Table):
    """The keys ``head``, and the journal's entries from there on."""

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
        pairs = zip(held.items(), await pipe.execute(), strict=True)
        return {
            channel
            for (channel, head), entries in pairs
            if not _is_proven(heads[channel], head, entries)
        }


def _is_proven(known: str, head: str | None, entries: Sequence[Any]) -> bool:
    """Tell whether the journal had this entry.

    ``entries`` is the first one from there on.
    A newer head alone is no proof: it may have been written after a loss.
    An entry that was trimmed is proven by the ``after`` of a later one.
    """
    if not entries:
        return stream_order(head or START) >= stream_order(known)
    ((first, fields),) = entries
    return first == known or stream_order(fields["after"]) >= stream_order(known)
