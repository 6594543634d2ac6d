"""All subscriptions of a worker, while the list of names changes."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable

from worker.live.assignment import Assignment, assign
from worker.live.subscription import Subscription
from worker.live.subscription_cursor import ResumePoint
from worker.source.names import Names

SubscriptionFactory = Callable[[Assignment[ResumePoint]], Subscription]


class Subscriptions:
    """Runs a subscription for each assignment, then its successors."""

    def __init__(
        self,
        create: SubscriptionFactory,
        assignments: Iterable[Assignment[ResumePoint]],
        size: int,
    ) -> None:
        """``size`` is how many names share a subscription at most."""
        self._create = create
        self._assignments = tuple(assignments)
        self._size = size
        self._tasks: dict[asyncio.Task[None], Subscription] = {}
        self._group = asyncio.TaskGroup()
        self._stopped = asyncio.Event()

    @property
    def current(self) -> list[Subscription]:
        """The subscriptions that poll, or apply what they have read."""
        return list(self._tasks.values())

    async def run(self) -> None:
        """Follow until ``stop``; then apply what was read."""
        async with self._group:
            for assignment in self._assignments:
                self._follow(assignment)
            await self._stopped.wait()
            for subscription in self.current:
                subscription.stop()

    def stop(self) -> None:
        """Stop polling; ``run`` ends when every answer is applied."""
        self._stopped.set()

    def restart_if_redis_went_back(self) -> None:
        """Go on from the cursors that Redis still knows."""
        for subscription in self.current:
            subscription.restart_if_redis_went_back()

    async def change(self, wanted: Names) -> tuple[int, int]:
        """Follow these names; return how many are new, and how many are gone.

        Names that stay keep their cursor.
        New names are marked for the repair of their past.
        """
        await self._wait_for_successors()
        followed = [(running.names, running) for running in self.current]
        successors: defaultdict[Subscription | None, list[Assignment[None]]]
        successors = defaultdict(list)
        for assignment in assign(wanted, followed, self._size):
            point, joined = assignment.resume_point, assignment.joined
            successors[point].append(Assignment(assignment.names, None, joined))

        before: set[str] = set()
        for names, subscription in followed:
            before.update(names.all)
            subscription.hand_over_to(successors[subscription])
        if not self._stopped.is_set():
            for new in successors[None]:
                self._follow(Assignment(new.names))

        after = set(wanted.all)
        return len(after - before), len(before - after)

    async def _wait_for_successors(self) -> None:
        def leaving() -> list[asyncio.Task[None]]:
            tasks = self._tasks.items()
            return [task for task, running in tasks if running.successors is not None]

        while tasks := leaving():
            await asyncio.wait(tasks)

    def _follow(self, assignment: Assignment[ResumePoint]) -> None:
        subscription = self._create(assignment)
        task = self._group.create_task(self._run(subscription))
        self._tasks[task] = subscription
        task.add_done_callback(self._tasks.pop)

    async def _run(self, subscription: Subscription) -> None:
        await subscription.run()
        if self._stopped.is_set():
            return
        for successor in subscription.successors or ():
            point = subscription.resume_point
            self._follow(Assignment(successor.names, point, successor.joined))
