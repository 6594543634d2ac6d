"""The repair queue of a worker on virtual time, with a gate for every request for history."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Final

from tests.bench.virtual import owed, until, worker_parts
from tests.simulation.world import World
from worker.reconciliation.repair_queue import RepairQueue
from worker.service.parts import build_reconciler, build_repair_steps
from worker.source.history import History
from worker.store.pending_repairs import GapCause

MOMENT_SECONDS: Final = 2.0
"""More than the requests before a reconcile take; less than any wait."""


class RepairBench:
    """A repair queue, and what it works with."""

    def __init__(
        self,
        world: World,
        tries: int | None = None,
        configured: Collection[str] = (),
        rate: float = 20,
    ) -> None:
        self.world = world
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = 0
        """Requests for history that have come to the gate."""
        self.seconds_a_request = 0.0
        """How long each of them waits."""
        parts = worker_parts(world)
        parts.settings = parts.settings.model_copy(update={"history_rate": rate})
        parts.budget.rate = rate
        self.parts = parts
        self.tables, self.applier, self.entries = parts.tables, parts.applier, parts.entries
        clock = world.loop.time
        parts.history = History(parts.client, self._take, clock)
        self.reconcile = build_reconciler(parts, tries, is_worker=True)
        steps = build_repair_steps(parts, self.reconcile, tries)
        self.queue = RepairQueue(steps, parts.tables, configured.__contains__)

    async def _take(self) -> None:
        self.asked += 1
        await self.gate.wait()
        if self.seconds_a_request:
            await asyncio.sleep(self.seconds_a_request)

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
