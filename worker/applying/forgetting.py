"""Forgets channels that nobody follows any more."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import structlog

from worker.store.pending_repairs import GapCause
from worker.store.store import Applied, Store
from worker.store.tables import Tables

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was kept of a channel."""

    channel: str
    was_known: bool
    """Whether it was among the channels ever seen."""
    messages: int
    """How many messages were deleted, each with its tallies."""
    is_back: bool
    """Whether an event came meanwhile: then it is a new channel."""


async def forget(channel: str, tables: Tables, store: Store) -> Forgotten:
    """Delete what is kept of a channel. Workers may run meanwhile."""
    was_known = not await tables.channels.unknown([channel])
    marks = await tables.pending.read(channel)
    # First: from here on every repair leaves it alone,
    # and its next first event is of a new channel.
    await tables.channels.forget(channel)
    # A channel that comes back is marked first, and then added.
    if await tables.pending.clear(channel, marks):
        await tables.channels.add([channel])
    await tables.proofs.forget(channel)
    messages = await store.clear(channel)
    is_back = not await tables.channels.unknown([channel])
    if is_back:
        # Some of what its repair has written may be among what was deleted.
        await tables.pending.mark([channel], GapCause.NEW_CHANNEL, is_new=False)
    return Forgotten(channel, was_known, messages, is_back)


async def unknown_channels(
    channels: Collection[str],
    tables: Tables,
) -> frozenset[str]:
    """Return those that were never seen, that no worker follows, and that hold no tally."""
    unseen = await tables.channels.unknown(channels)
    unknown = await tables.channels.uncounted(unseen)
    if not unknown:
        return unknown
    followed: set[str] = set()
    for names, _ in await tables.cursors.followed():
        followed.update(names)
    return unknown - followed


async def mark_forgotten(tables: Tables, results: Sequence[Applied]) -> None:
    """Mark channels as new that got an event after they were forgotten.

    A worker that follows or repairs them takes them for known.
    Their past is owed: no cursor has passed yet what was applied.
    A channel that had messages before was not forgotten.
    """
    candidates = [applied.channel for applied in results if applied.may_be_unknown]
    if not candidates:
        return
    unknown = await tables.channels.unknown(candidates)
    if not unknown:
        return
    # A channel with marks is about to be added.
    forgotten = unknown - (await tables.pending.read_all(unknown)).keys()
    if forgotten:
        await tables.owe(forgotten, GapCause.NEW_CHANNEL)
    await tables.channels.add(unknown)
