"""Subscriptions on a bench: one of them, or all of a list."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from tests.bench.bench import Bench
from tests.bench.waiting import LONGEST_SECONDS, wait_until_exact, wait_until_true
from tests.waiting import wait_until
from worker.domain.position import Cursor, Range
from worker.live.assignment import Assignment
from worker.live.subscription import Subscription
from worker.live.subscription_cursor import ResumePoint
from worker.live.subscriptions import Subscriptions
from worker.source.names import Names

MESSAGE = "17600000001728660"
ROOM = Names(("room",))


class SubscriptionRun:
    """A subscription at work, and the repairs it has asked for."""

    def __init__(self, bench: Bench, assignment: Assignment[ResumePoint]) -> None:
        self.repairs: list[tuple[set[str], Range]] = []
        self.subscription = bench.subscription(assignment, self._repair)
        self.bench = bench

    async def _repair(self, channels: Collection[str], stretch: Range | None) -> None:
        if stretch:
            self.repairs.append((set(channels), stretch))

    async def settled(self) -> None:
        """Wait until the tallies equal the truth."""
        await wait_until_exact(self.bench)

    async def owed(self, channel: str) -> set[str]:
        """Return why a channel needs a repair."""
        return set(await self.bench.tables.pending.read(channel))

    async def has_begun(self) -> bool:
        """Tell whether a cursor is saved: then the handshake is over."""
        return await self.cursor() is not None

    async def cursor(self) -> Cursor | None:
        """Return the saved cursor."""
        saved = await self.bench.tables.cursors.read(self.subscription.id)
        return saved.cursor if saved else None


@asynccontextmanager
async def running_subscription(bench: Bench, names: Names = ROOM) -> AsyncIterator[SubscriptionRun]:
    """Follow names until the block ends, then drain."""
    run = SubscriptionRun(bench, Assignment(names))
    running = asyncio.create_task(run.subscription.run())
    try:
        await wait_until(lambda: bench.emulator.waiting > 0 or running.done())
        await wait_until_true(run.has_begun, expected=True)
        yield run
    finally:
        run.subscription.stop()
        await asyncio.wait_for(running, LONGEST_SECONDS)


@asynccontextmanager
async def running_subscriptions(
    bench: Bench, names: Collection[str], size: int = 2, *, begun: bool = True
) -> AsyncIterator[Subscriptions]:
    """Follow channels until the block ends; a word is channels of one letter each.

    All have ``begun`` when the block begins.
    """

    async def repair(_channels: Collection[str], _stretch: Range | None) -> None: ...

    def subscription(assignment: Assignment[ResumePoint]) -> Subscription:
        return bench.subscription(assignment, repair)

    run = Subscriptions(
        subscription, [Assignment(part) for part in Names.of(names).split(size)], size
    )
    running = asyncio.create_task(run.run())
    try:
        if begun:
            await has_begun(bench, run)
        yield run
    finally:
        run.stop()
        await asyncio.wait_for(running, LONGEST_SECONDS)


async def has_begun(bench: Bench, subscriptions: Subscriptions) -> None:
    """Wait until every subscription has a resume point, and polls."""

    def have_all() -> bool:
        current = subscriptions.current
        polling = bench.emulator.waiting == len(current) > 0
        return polling and all(subscription.resume_point for subscription in current)

    await wait_until(have_all)


def react(bench: Bench, count: int, channel: str = "room", start: int = 0) -> None:
    """Let so many users react."""
    for number in range(start, start + count):
        bench.emulator.state.add(channel, MESSAGE, "reaction", "👍", f"user{number}")


async def wait_until_asked_again(bench: Bench, asked: int) -> None:
    """Wait until the worker has polled more often than that.

    Then it has read the answers before.
    """
    await wait_until(lambda: bench.emulator.requests["subscribe"] > asked)


async def wait_until_read(bench: Bench) -> None:
    """Wait until the worker polls again, so that no answer grows to a hundred."""
    await wait_until(lambda: bench.emulator.waiting > 0)
