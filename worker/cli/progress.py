"""How far history is read, on a terminal: a line for each channel."""

import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final, TypeVar

from rich.console import Console
from rich.markup import escape as escape_markup
from rich.progress import Progress as ProgressDisplay
from rich.progress import ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from worker.applying.retry import ProgressWatcher
from worker.cli.interrupts import finish
from worker.domain.position import Timetoken, milliseconds
from worker.store.progress import Progress
from worker.telemetry.text import escape

Result = TypeVar("Result")

PUBNUB_DIGITS: Final = 17
"""Digits of PubNub's own timetokens."""


def finish_with_progress(work: Callable[[ProgressWatcher | None], Awaitable[Result]]) -> Result:
    """Finish the work, and show its progress if standard error is a terminal."""
    if not sys.stderr.isatty():
        return finish(work(None))

    async def work_with_progress() -> Result:
        with ProgressDisplay(*columns(), console=Console(stderr=True)) as display:
            return await work(ChannelLines(display))

    return finish(work_with_progress())


def columns() -> tuple[ProgressColumn, ...]:
    """Return the columns of a channel's line."""
    return (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        ActionsColumn(),
        TextColumn("back to {task.fields[reached]}"),
        TimeElapsedColumn(),
    )


class ActionsColumn(ProgressColumn):
    """The actions read of a channel, and how many a second."""

    def render(self, task: Task) -> Text:
        """Return the column's text."""
        return Text(f"{task.completed:.0f} actions, {task.speed or 0:.0f}/s")


class ChannelLines:
    """For each channel: the actions read, how many a second, and the date reached.

    History is read from the newest action back, so the date goes back.
    """

    def __init__(self, display: ProgressDisplay) -> None:
        self._display = display
        self._tasks: dict[str, TaskID] = {}

    def reach(self, channel: str, place: Progress) -> None:
        """Redraw a channel's line. What an interrupted run has read is no part of the rate."""
        if channel not in self._tasks:
            self._tasks[channel] = self._display.add_task(
                escape_markup(escape(channel)), total=None, completed=place.actions, reached=""
            )
        self._display.update(
            self._tasks[channel], completed=place.actions, reached=_date_of(place.next)
        )


def _date_of(timetoken: Timetoken) -> str:
    """Return ``2026-01-31 12:00``, in UTC. A timetoken that is not PubNub's own stays as it is."""
    if len(timetoken) != PUBNUB_DIGITS:
        return timetoken

    moment = datetime.fromtimestamp(milliseconds(timetoken) / 1000, UTC)
    return moment.strftime("%Y-%m-%d %H:%M")
