"""All subscriptions of a worker, and how the list of names changes while they run."""

import asyncio
from collections.abc import Callable, Iterable

from worker.live.assignment import Assignment, assign
from worker.live.resume_point import ResumePoint
from worker.live.subscription import Subscription
from worker.source.names import Names

Assignments = Iterable[Assignment[ResumePoint]]
SubscriptionFactory = Callable[[Assignment[ResumePoint]], Subscription]


class Subscriptions:
    """Follows each assignment by a subscription, and the successors of each."""

    def __init__(
        self,
        create: SubscriptionFactory,
        assignments: Assignments,
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
        """The subscriptions that run now, or still apply what they have read."""
        return list(self._tasks.values())

    async def run(self) -> None:
        """Follow until ``stop``, and then until everything that was read is applied."""
        async with self._group as group:
            for assignment in self._assignments:
                self._follow(assignment, group)
            await self._stopped.wait()
            for subscription in self.current:
                subscription.stop()

    def stop(self) -> None:
        """Stop polling; ``run`` ends when every answer is applied and every cursor saved."""
        self._stopped.set()

    def reread(self) -> None:
        """Let every subscription go on from the cursor in Redis, if Redis went back."""
        for subscription in self.current:
            subscription.reread()

    async def change(self, wanted: Names) -> tuple[int, int]:
        """Follow these names from now on.

        Return how many are new, and how many are gone.
        Names that stay keep their cursor.
        New names are marked for the repair of their past.
        """
        await self._wait_for_successors()
        current = self.current
        before: set[str] = set()
        for subscription in current:
            before.update(subscription.names.all)

        followed = [(subscription.names, subscription) for subscription in current]
        assignments = assign(wanted, followed, self._size)
        for subscription in current:
            self._hand_over(subscription, assignments)
        self._follow_new(assignments)

        after = set(wanted.all)
        return len(after - before), len(before - after)

    async def _wait_for_successors(self) -> None:
        """Return when no subscription is handing over."""
        while True:
            leaving = [
                task
                for task, subscription in self._tasks.items()
                if subscription.successors is not None
            ]
            if not leaving:
                return
            await asyncio.wait(leaving)

    def _hand_over(
        self,
        subscription: Subscription,
        assignments: Iterable[Assignment[Subscription]],
    ) -> None:
        """Replace a subscription by its successors, unless its names are as they were."""
        successors: list[Assignment[None]] = []
        for assignment in assignments:
            if assignment.resume_point is subscription:
                names, joined = assignment.names, assignment.joined
                successors.append(Assignment(names, None, joined))

        names_now = [successor.names for successor in successors]
        if names_now != [subscription.names]:
            subscription.hand_over_to(successors)

    def _follow_new(self, assignments: Iterable[Assignment[Subscription]]) -> None:
        """Follow the assignments that start anew, unless the worker stops."""
        if self._stopped.is_set():
            return
        for assignment in assignments:
            if assignment.resume_point is None:
                self._follow(Assignment(assignment.names), self._group)

    def _follow(
        self,
        assignment: Assignment[ResumePoint],
        group: asyncio.TaskGroup,
    ) -> None:
        """Run a subscription in a task of its own."""
        subscription = self._create(assignment)
        task = group.create_task(self._run(subscription, group))
        self._tasks[task] = subscription
        task.add_done_callback(self._tasks.pop)

    async def _run(
        self,
        subscription: Subscription,
        group: asyncio.TaskGroup,
    ) -> None:
        """Run a subscription to its end, then its successors."""
        await subscription.run()
        if self._stopped.is_set():
            return
        for successor in subscription.successors or ():
            point = subscription.resume_point
            assignment = Assignment(successor.names, point, successor.joined)
            self._follow(assignment, group)
