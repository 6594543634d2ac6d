"""How far history is read, on a terminal: a line for each channel."""

import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final, TypeVar

from rich.console import Console
from rich.markup import escape as escape_markup
from rich.progress import Progress as ProgressDisplay
from rich.progress import (
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from worker.applying.retry import ProgressWatcher
from worker.cli.interrupts import finish
from worker.domain.position import Timetoken, milliseconds
from worker.store.progress import Progress
from worker.telemetry.text import escape

Result = TypeVar("Result")

PUBNUB_DIGITS: Final = 17
"""Digits of PubNub's own timetokens."""


Work = Callable[[ProgressWatcher | None], Awaitable[Result]]


def finish_with_progress(work: Work[Result]) -> Result:
    """Finish the work.

    Its progress is shown if standard error is a terminal.
    """
    if not sys.stderr.isatty():
        return finish(work(None))

    return finish(_with_progress(work))


async def _with_progress(work: Work[Result]) -> Result:
    console = Console(stderr=True)
    with ProgressDisplay(*columns(), console=console) as display:
        lines = ChannelLines(display)
        return await work(lines)


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
        speed = task.speed or 0
        return Text(f"{task.completed:.0f} actions, {speed:.0f}/s")


class ChannelLines:
    """For each channel: the actions read, their rate, and the date reached.

    History is read from the newest action back, so the date goes back.
    """

    def __init__(self, display: ProgressDisplay) -> None:
        self._display = display
        self._tasks: dict[str, TaskID] = {}

    def reach(self, channel: str, place: Progress) -> None:
        """Redraw a channel's line.

        What an interrupted run has read is no part of the rate.
        """
        if channel not in self._tasks:
            name = escape_markup(escape(channel))
            self._tasks[channel] = self._display.add_task(
                name,
                total=None,
                completed=place.actions,
                reached="",
            )
        self._display.update(
            self._tasks[channel],
            completed=place.actions,
            reached=_date_of(place.next),
        )


def _date_of(timetoken: Timetoken) -> str:
    """Return ``2026-01-31 12:00``, in UTC.

    A timetoken that is not PubNub's own stays as it is.
    """
    if len(timetoken) != PUBNUB_DIGITS:
        return timetoken

    seconds = milliseconds(timetoken) / 1000
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.strftime("%Y-%m-%d %H:%M")
