"""The repair queue of a worker on virtual time, with a gate for every request for history."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from tests.bench.virtual import owed, until, worker_parts
from tests.simulation.world import SETTLE_SECONDS, World
from worker.applying.retry import RetryPolicy
from worker.domain.reconciliation import Limit
from worker.reconciliation.evidence import Comparison
from worker.reconciliation.reconcile import ReconcilePolicy, Reconciler
from worker.reconciliation.repair_queue import RepairQueue
from worker.reconciliation.scan import Scanner
from worker.service.parts import new_backoff
from worker.source.history import History
from worker.store.pending_repairs import GapCause

MOMENT_SECONDS: Final = 2.0
"""More than the requests before a reconcile take; less than any wait."""


class RepairBench:
    """A repair queue, and what it works with."""

    def __init__(self, world: World, tries: int | None = None) -> None:
        self.world = world
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = 0
        """Requests for history that have come to the gate."""
        parts = worker_parts(world)
        self.tables, self.applier, self.entries = parts.tables, parts.applier, parts.entries
        clock = world.loop.time
        policy = RetryPolicy(
            counted_types=parts.counted_types,
            backoff=new_backoff,
            hold=self._hold,
            clock=clock,
            settle_seconds=SETTLE_SECONDS,
            tries=tries,
        )
        scanner = Scanner(History(parts.client, self._take, clock), parts.client.time, policy)
        self.reconcile = Reconciler(
            Comparison(scanner, parts.entries, policy),
            parts.retried_entries,
            parts.applier,
            parts.tables,
            ReconcilePolicy(SETTLE_SECONDS, Limit(0.2, 20), clock),
        )
        self.queue = RepairQueue(self.reconcile, parts.tables, SETTLE_SECONDS, clock)

    async def _take(self) -> None:
        self.asked += 1
        await self.gate.wait()

    async def _hold(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def mark(self, *channels: str, gap: GapCause = GapCause.OVERFLOW) -> None:
        """Mark channels, as a worker does that is killed before it notes them."""
        await self.tables.pending.mark(channels, gap)
        await self.tables.channels.add(channels)

    async def owe(self, *channels: str, gap: GapCause = GapCause.OVERFLOW) -> None:
        """Mark channels and note them, as a worker does."""
        await self.mark(*channels, gap=gap)
        self.queue.note(channels)

    async def are_repaired(self, *channels: str) -> None:
        """Wait until these channels have no mark."""
        await until(lambda: not owed(self.world, *channels))


@asynccontextmanager
async def running(repairs: RepairBench) -> AsyncIterator[None]:
    """Run the queue until the block ends; it has read the marks when the block begins."""
    task = asyncio.create_task(repairs.queue.run())
    try:
        await asyncio.sleep(MOMENT_SECONDS)
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
