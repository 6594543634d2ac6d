"""Notices that a shard of a cluster was restarted, or has another primary."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from worker.applying.rollback import RollbackRecovery
from worker.errors import TallyError
from worker.store.rollback_detector import RollbackDetector
from worker.store.shard_signs import ShardSigns
from worker.store.tables import Tables

WATCH_SECONDS: Final = 1.0
"""How often the signs of all shards are read."""
MARKS_SECONDS: Final = 60.0
"""How often marks are read that others may have taken back."""


@asynccontextmanager
async def shards_watched(
    tables: Tables,
    signs: ShardSigns,
    detector: RollbackDetector,
    recovery: RollbackRecovery,
) -> AsyncIterator[None]:
    """Watch the shards meanwhile. What one of them has lost is owed before the next write.

    ``tables`` raise while Redis is away.
    """
    detector.meet(await tables.server.run_id())
    watch = asyncio.create_task(_watch(tables, signs, detector, recovery))
    try:
        yield
    finally:
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch


async def _watch(
    tables: Tables,
    signs: ShardSigns,
    detector: RollbackDetector,
    recovery: RollbackRecovery,
) -> None:
    loop = asyncio.get_running_loop()
    marks_at = loop.time() + MARKS_SECONDS
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        # Whoever reads or writes says that Redis is away, or that the namespace is lost.
        with suppress(TallyError):
            unconfirmed = detector.acknowledged.unconfirmed()
            layout = await signs.layout()
            detector.meet(await tables.server.run_id())
            if detector.is_suspect:
                await recovery.run()
            else:
                # Both were so before the signs showed that nothing was lost.
                detector.acknowledged.confirm(unconfirmed)
                detector.layout = layout
            if loop.time() >= marks_at:
                marks_at = loop.time() + MARKS_SECONDS
                await note_repaired(tables, detector)


async def note_repaired(tables: Tables, detector: RollbackDetector) -> None:
    """Note which channels have no marks any more: others have repaired them.

    Else each change of a shard would owe them again, for as long as this process lives.

    Raises:
        RedisReplacedError: a shard has changed meanwhile.
    """
    known, epoch = detector.acknowledged, detector.epoch
    count = known.mark_count
    channels = known.marks.keys() - known.taken_back.keys()
    marked = await tables.pending.read_all(channels)
    heads = await tables.heads.read(channels - marked.keys())
    detector.check_epoch(epoch)
    known.note_heads(heads)
    for channel in heads:
        known.note_taken_back(channel, count)
