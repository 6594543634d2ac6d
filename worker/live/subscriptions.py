"""All subscriptions of a worker: who is followed, and how the list changes while they are."""

import asyncio
from collections.abc import Callable, Iterable

import structlog

from worker.live.assignment import Lot, partition
from worker.live.subscription import Place, Subscription
from worker.source.names import Names

log = structlog.get_logger(__name__)

Lots = Iterable[Lot[Place]]


class Following:
    """Follows lots of names, each by a subscription, and their heirs after them."""

    def __init__(self, subscription: Callable[[Lot[Place]], Subscription], lots: Lots, size: int) -> None:
        """``size`` is how many names share a subscription at most."""
        self._subscription = subscription
        self._lots = tuple(lots)
        self._size = size
        self._tasks: dict[asyncio.Task[None], Subscription] = {}
        self._group = asyncio.TaskGroup()
        self._stopped = asyncio.Event()

    @property
    def subscriptions(self) -> list[Subscription]:
        """Those that are followed now, or still work off what they have read."""
        return list(self._tasks.values())

    async def run(self) -> None:
        """Follow until ``stop``, and then until what was read is applied."""
        async with self._group as group:
            for lot in self._lots:
                self._follow(lot, group)
            await self._stopped.wait()
            for subscription in self.subscriptions:
                subscription.stop()

    def stop(self) -> None:
        """Poll no more; ``run`` ends when what was polled is applied and the cursors saved."""
        self._stopped.set()

    def reread(self) -> None:
        """Have every subscription begin again that no longer knows its Redis."""
        for subscription in self.subscriptions:
            subscription.reread()

    async def change(self, wanted: Names) -> tuple[int, int]:
        """Follow these names from now on; return how many are new, and how many are followed no more.

        Nobody who stays is missed; who is new is owed what came before.
        """
        while leaving := [task for task, each in self._tasks.items() if each.heirs is not None]:
            await asyncio.wait(leaving)  # until their heirs are there
        followed = self.subscriptions
        before, after = {name for each in followed for name in each.names.all}, set(wanted.all)
        lots = partition(wanted, [(each.names, each) for each in followed], self._size)
        for subscription in followed:
            heirs: list[Lot[None]] = [Lot(lot.names, None, lot.joined) for lot in lots if lot.place is subscription]
            if [heir.names for heir in heirs] != [subscription.names]:
                subscription.leave_to(heirs)
        for lot in lots:
            if lot.place is None and not self._stopped.is_set():
                self._follow(Lot(lot.names), self._group)
        return len(after - before), len(before - after)

    def _follow(self, lot: Lot[Place], group: asyncio.TaskGroup) -> None:
        subscription = self._subscription(lot)
        task = group.create_task(self._run(subscription, group))
        self._tasks[task] = subscription
        task.add_done_callback(self._tasks.pop)

    async def _run(self, subscription: Subscription, group: asyncio.TaskGroup) -> None:
        await subscription.run()
        if not self._stopped.is_set():
            for heir in subscription.heirs or ():
                self._follow(Lot(heir.names, subscription.place, heir.joined), group)
