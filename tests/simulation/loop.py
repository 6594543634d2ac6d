"""An event loop whose time jumps to the next timer, in an order that the seed decides."""

import asyncio
import heapq
from asyncio import events
from collections.abc import Coroutine
from contextvars import Context, ContextVar
from random import Random
from typing import Any, Final, Protocol, TypeVar

START: Final = 1_760_000_000.0
"""When every simulation begins, in seconds since 1970."""

Result = TypeVar("Result")


class StuckError(Exception):
    """Nothing is ready and no timer runs: all tasks wait for each other."""


class RunawayError(Exception):
    """A history takes more steps than any should: something spins."""


class Machine(Protocol):
    """What a task runs on. While it is suspended it makes no step, and its timers are late."""

    is_suspended: bool
    parked: list[asyncio.Handle]


MACHINE: ContextVar[Machine | None] = ContextVar("machine", default=None)


class NumberedTask(asyncio.Task[Any]):
    """A task that hashes to its number, so that sets of tasks have the same order in every run."""

    number = 0

    def __hash__(self) -> int:
        return self.number


class _NoSelector:
    """A selector without events."""

    def get_map(self) -> dict[int, object]:
        return {}

    def close(self) -> None:
        pass


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs ready tasks in a shuffled order; then time jumps to the next timer."""

    def __init__(self, random: Random, most_steps: int = 2_000_000) -> None:
        super().__init__()
        self._selector = _NoSelector()
        self._random = random
        self._now = START
        self._most_steps = most_steps
        self.steps = 0
        self.suspended = 0
        """How many machines are suspended."""
        self.broken: BaseException | None = None
        """What went wrong where nobody waited for it."""
        self._is_over = False
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._made = 0
        self._tasks = 0
        self.set_task_factory(self._number)
        self.set_exception_handler(self._note)

    def time(self) -> float:
        """Return seconds since 1970, of this world."""
        return self._now

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call a function in that many seconds."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call a function at that time; of two at one time, the first one set is first."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._made += 1
        heapq.heappush(self._timers, (when, self._made, handle))
        return handle

    def move(self, seconds: float) -> None:
        """Begin that much later."""
        self._now += seconds

    def run(self, main: Coroutine[Any, Any, Result]) -> Result:
        """Run one coroutine to its end, or to the first error of any task.

        Leave nothing behind.
        """
        try:
            return self.run_until_complete(main)
        finally:
            self._sweep_up()
            self.close()

    def _sweep_up(self) -> None:
        self._most_steps += 100_000
        broken, self._is_over = self.broken, True
        while left := sorted(asyncio.all_tasks(self), key=hash):
            for task in left:
                task.cancel()
            self.run_until_complete(asyncio.wait(left))
        self.broken = broken

    def _number(
        self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
    ) -> NumberedTask:
        self._tasks += 1
        task = NumberedTask(coroutine, loop=loop, **options)
        task.number = self._tasks
        return task

    def _note(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.broken = (
            self.broken or context.get("exception") or RuntimeError(str(context.get("message")))
        )

    def _run_once(self) -> None:
        batch = self._due()
        if len(batch) > 1:
            self._random.shuffle(batch)
        self.steps += len(batch)
        if self.steps > self._most_steps:
            raise RunawayError(f"more than {self._most_steps} steps")
        for handle in batch:
            if self.broken and not self._is_over:
                raise self.broken
            if not handle._cancelled and not (self.suspended and self._park(handle)):
                handle._run()

    def _due(self) -> list[asyncio.Handle]:
        """Return what is ready; if nothing is, let time pass."""
        ready: Any = self._ready  # type: ignore[attr-defined]
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        if not ready:
            if not timers:
                raise StuckError("everybody waits for somebody else")
            self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            ready.append(heapq.heappop(timers)[2])
        batch = list(ready)
        ready.clear()
        return batch

    def _park(self, handle: asyncio.Handle) -> bool:
        """Keep a step for later, if its machine is suspended."""
        context: Context = handle._context  # type: ignore[attr-defined]
        machine = context.get(MACHINE)
        if machine is None or not machine.is_suspended:
            return False
        machine.parked.append(handle)
        return True

    def suspend(self, machine: Machine) -> None:
        """Let a machine make no step."""
        machine.is_suspended = True
        self.suspended += 1

    def resume(self, machine: Machine) -> None:
        """Let a machine go on: what should have happened meanwhile happens now."""
        machine.is_suspended = False
        self.suspended -= 1
        self._ready.extend(machine.parked)  # type: ignore[attr-defined]
        machine.parked.clear()

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass  # a cancelled timer is dropped when its time comes

    def _process_events(self, event_list: object) -> None:
        raise NotImplementedError

    def _write_to_self(self) -> None:
        pass


def running() -> VirtualLoop:
    """Return the loop that runs."""
    loop = events.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop
