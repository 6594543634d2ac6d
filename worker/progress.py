"""A backfill's progress: a bar with rate and estimate on a terminal, plain lines otherwise (the log's)."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape as plain
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from worker.backfill import Range, Report
from worker.store.marks import Progress as Place
from worker.telemetry.logs import escape


@contextmanager
def shown_progress(wanted: Range) -> Iterator[Report]:
    """Yield what to tell each channel's place to."""
    if not sys.stderr.isatty():
        yield lambda _channel, _place: None
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
        yield Bars(bars, wanted).report


class Bars:
    """A bar for each channel, drawn by how far back in time it has come.

    Without ``since`` nobody knows where a channel's history begins, so there is no estimate until it ends.
    """

    def __init__(self, bars: Progress, wanted: Range) -> None:
        self._bars = bars
        self._wanted = wanted
        self._tasks: dict[str, tuple[TaskID, float, int]] = {}

    def report(self, channel: str, place: Place) -> None:
        """Redraw a channel's bar."""
        total = int(place.newest) - int(place.oldest) if place.oldest else None
        if channel not in self._tasks:
            task = self._bars.add_task(plain(escape(channel)), total=total, actions=0, rate=0.0)
            self._tasks[channel] = (task, time.monotonic(), place.actions)
        task, began, already = self._tasks[channel]
        seconds = max(time.monotonic() - began, 1e-3)
        done = int(place.newest) - int(place.next)
        self._bars.update(
            task, completed=done, total=total, actions=place.actions, rate=(place.actions - already) / seconds
        )
