"""How far history is read, on a terminal: a line for each channel."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.console import Console
from rich.markup import escape as escape_markup
from rich.progress import Progress as ProgressDisplay
from rich.progress import SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from worker.domain.position import Timetoken, milliseconds
from worker.store.marks import Progress
from worker.telemetry.text import escape


@dataclass(frozen=True, slots=True)
class ChannelLine:
    """A line of the display, and where its channel began."""

    task: TaskID
    began_at: float
    actions_before: int
    """Actions that an interrupted run has read."""

    def rate(self, actions: int, now: float) -> float:
        """Return the actions read in a second."""
        seconds = max(now - self.began_at, 1e-3)
        return (actions - self.actions_before) / seconds


@contextmanager
def shown_progress() -> Iterator["ChannelLines"]:
    """Show progress on standard error while this is open."""
    with progress_display(Console(stderr=True)) as display:
        yield ChannelLines(display, time.monotonic)


def progress_display(console: Console) -> ProgressDisplay:
    """Return a display whose lines are drawn by ``ChannelLines``."""
    return ProgressDisplay(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.fields[actions]} actions, {task.fields[rate]:.0f}/s"),
        TextColumn("back to {task.fields[reached]}"),
        TimeElapsedColumn(),
        console=console,
    )


class ChannelLines:
    """For each channel: the actions read, how many a second, and the date reached.

    History is read from the newest action back, so the date goes back.
    """

    def __init__(self, display: ProgressDisplay, clock: Callable[[], float]) -> None:
        self._display = display
        self._clock = clock
        self._lines: dict[str, ChannelLine] = {}

    def reach(self, channel: str, place: Progress) -> None:
        """Redraw a channel's line."""
        if channel not in self._lines:
            self._lines[channel] = self._add(channel, place)
        line = self._lines[channel]
        self._display.update(
            line.task,
            actions=place.actions,
            rate=line.rate(place.actions, self._clock()),
            reached=date_of(place.next),
        )

    def _add(self, channel: str, place: Progress) -> ChannelLine:
        task = self._display.add_task(
            escape_markup(escape(channel)),
            total=None,
            actions=place.actions,
            rate=0.0,
            reached=date_of(place.next),
        )
        return ChannelLine(task, self._clock(), place.actions)


def date_of(timetoken: Timetoken) -> str:
    """Return a timetoken as a date and a time in UTC, such as ``2026-01-31 12:00``.

    Only PubNub's own have 17 digits. Any other is shown as it is.
    """
    if len(timetoken) != 17:
        return timetoken
    moment = datetime.fromtimestamp(milliseconds(timetoken) / 1000, UTC)
    return moment.strftime("%Y-%m-%d %H:%M")
