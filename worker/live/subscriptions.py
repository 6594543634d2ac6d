"""All subscriptions of a worker: who is followed, and how the list changes while they are."""

import asyncio
from collections.abc import Callable, Iterable

import structlog

from worker.live.assignment import Assignment, assign
from worker.live.subscription import ResumePoint, Subscription
from worker.source.names import Names

log = structlog.get_logger(__name__)

Assignments = Iterable[Assignment[ResumePoint]]


class Subscriptions:
    """Follows lots of names, each by a subscription, and their heirs after them."""

    def __init__(
        self,
        subscription: Callable[[Assignment[ResumePoint]], Subscription],
        assignments: Assignments,
        size: int,
    ) -> None:
        """``size`` is how many names share a subscription at most."""
        self._subscription = subscription
        self._lots = tuple(assignments)
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
            for assignment in self._lots:
                self._follow(assignment, group)
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
        while leaving := [
            task for task, each in self._tasks.items() if each.successors is not None
        ]:
            await asyncio.wait(leaving)  # until their heirs are there
        followed = self.subscriptions
        before, after = {name for each in followed for name in each.names.all}, set(wanted.all)
        assignments = assign(wanted, [(each.names, each) for each in followed], self._size)
        for subscription in followed:
            successors: list[Assignment[None]] = [
                Assignment(assignment.names, None, assignment.joined)
                for assignment in assignments
                if assignment.resume_point is subscription
            ]
            if [successor.names for successor in successors] != [subscription.names]:
                subscription.hand_over_to(successors)
        for assignment in assignments:
            if assignment.resume_point is None and not self._stopped.is_set():
                self._follow(Assignment(assignment.names), self._group)
        return len(after - before), len(before - after)

    def _follow(self, assignment: Assignment[ResumePoint], group: asyncio.TaskGroup) -> None:
        subscription = self._subscription(assignment)
        task = group.create_task(self._run(subscription, group))
        self._tasks[task] = subscription
        task.add_done_callback(self._tasks.pop)

    async def _run(self, subscription: Subscription, group: asyncio.TaskGroup) -> None:
        await subscription.run()
        if not self._stopped.is_set():
            for successor in subscription.successors or ():
                self._follow(
                    Assignment(successor.names, subscription.resume_point, successor.joined), group
                )
