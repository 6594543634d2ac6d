"""How far history is read: a bar with rate and estimate on a terminal, plain lines otherwise (the log's)."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape as plain
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from worker.store.progress import Progress as Place
from worker.telemetry.logs import escape


@contextmanager
def shown_progress() -> Iterator["Bars | None"]:
    """Yield who is to look on: bars on a terminal, nobody elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[actions]} actions, {task.fields[rate]:.0f}/s"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        yield Bars(bars, time.monotonic)


class Bars:
    """A bar for each channel, drawn by how far back in time it has come towards the channel's oldest action."""

    def __init__(self, bars: Progress, clock: Callable[[], float]) -> None:
        self._bars = bars
        self._clock = clock
        self._oldest: dict[str, int | None] = {}
        self._tasks: dict[str, tuple[TaskID, float, int]] = {}

    def expect(self, channel: str, oldest: str | None) -> None:
        """Note where a channel's actions begin."""
        self._oldest[channel] = int(oldest) if oldest else None

    def reach(self, channel: str, place: Place) -> None:
        """Redraw a channel's bar."""
        oldest = self._oldest.get(channel)
        total = int(place.newest) - oldest if oldest is not None else None
        if channel not in self._tasks:
            task = self._bars.add_task(plain(escape(channel)), total=total, actions=0, rate=0.0)
            self._tasks[channel] = (task, self._clock(), place.actions)
        task, began, already = self._tasks[channel]
        rate = (place.actions - already) / max(self._clock() - began, 1e-3)
        done = int(place.newest) - int(place.next)
        self._bars.update(task, completed=done, total=total, actions=place.actions, rate=rate)
