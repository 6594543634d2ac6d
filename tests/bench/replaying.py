"""Backfills on a bench: a history to replay, and an observer of its progress."""

from collections.abc import Awaitable, Callable

from tests.bench.bench import SETTLE_SECONDS, Bench, backoff
from worker.applying.retry import RetryPolicy
from worker.history.backfill import Backfiller
from worker.source.history import History
from worker.store.progress import Progress

FIRST = 17600000000000000


def seed(bench: Bench, channel: str, count: int) -> None:
    """Store a history of actions on ten messages."""
    for number in range(count):
        bench.emulator.state.add(
            channel,
            str(FIRST + number % 10),
            "reaction",
            "👍🎉"[number % 2],
            f"user{number}",
            published=False,
            at=FIRST + 2 * number,
        )


async def at_once() -> None:
    """Take a request from a budget without bounds."""


class NotedProgress:
    """Notes the progress of channels."""

    def __init__(self) -> None:
        self.reached: dict[str, list[Progress]] = {}

    def reach(self, channel: str, progress: Progress) -> None:
        """Note the progress."""
        self.reached.setdefault(channel, []).append(progress)


class Interruption(NotedProgress):
    """Ends a backfill after so many actions."""

    def __init__(self, actions: int) -> None:
        super().__init__()
        self._actions = actions
        self.ends: Callable[[], object] = lambda: None

    def reach(self, channel: str, progress: Progress) -> None:
        """Note the progress; end the backfill if it has come far enough."""
        super().reach(channel, progress)
        if progress.actions >= self._actions:
            self.ends()


def backfill(
    bench: Bench,
    tries: int | None = 3,
    watch: NotedProgress | None = None,
    take: Callable[[], Awaitable[None]] = at_once,
) -> Backfiller:
    """Return a backfiller whose requests wait for ``take``."""

    async def hold(_: float) -> None: ...

    policy = RetryPolicy(
        counted_types=bench.counted_types,
        backoff=backoff,
        hold=hold,
        clock=bench.clock,
        settle_seconds=SETTLE_SECONDS,
        tries=tries,
    )
    history = History(bench.client, take, bench.clock)
    return Backfiller(history, bench.client.time, bench.applier, bench.tables, policy, watch)
