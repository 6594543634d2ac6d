"""Notices that a shard of a cluster was restarted, or has another primary."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from worker.applying.rollback import RollbackRecovery
from worker.errors import TallyError
from worker.store.rollback_detector import RollbackDetector
from worker.store.shard_signs import ShardSigns
from worker.store.tables import RedisServer

WATCH_SECONDS: Final = 1.0
"""How often the signs of all shards are read."""


@asynccontextmanager
async def shards_watched(
    server: RedisServer,
    signs: ShardSigns,
    detector: RollbackDetector,
    recovery: RollbackRecovery,
) -> AsyncIterator[None]:
    """Watch the shards meanwhile. What one of them has lost is owed before the next write."""
    detector.meet(await server.run_id())
    watch = asyncio.create_task(_watch(server, signs, detector, recovery))
    try:
        yield
    finally:
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch


async def _watch(
    server: RedisServer,
    signs: ShardSigns,
    detector: RollbackDetector,
    recovery: RollbackRecovery,
) -> None:
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        # Whoever reads or writes says that Redis is away, or that the namespace is lost.
        with suppress(TallyError):
            unconfirmed = detector.acknowledged.unconfirmed()
            layout = await signs.layout()
            detector.meet(await server.run_id())
            if detector.is_suspect:
                await recovery.run()
            else:
                # Both were so before the signs showed that nothing was lost.
                detector.acknowledged.confirm(unconfirmed)
                detector.layout = layout
