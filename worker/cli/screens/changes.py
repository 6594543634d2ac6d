"""``tally tail`` on a terminal: a row for each change."""

from typing import Final

from rich.console import Console

from reaction_tally import Reset
from worker.cli.changes import reset_line
from worker.cli.screens.terminal import GAP, Column, cell, print_row
from worker.cli.times import clock_time
from worker.reading.past import TimedChange

COLUMNS: Final = (
    Column(),
    Column(),
    Column(),
    Column(is_right=True),
    Column(),
    Column(),
)
WIDE: Final = (8, 16, 17, 6, 14, 9)
"""Widths in cells: time, channel, message, count, value, type."""
NARROW: Final = (8, 16, 0, 6, 12, 0)
WIDE_FROM: Final = 80
"""Narrower terminals have no room for the message and the type."""
CHANNEL: Final = 1
"""The column of the channel."""
LONGEST_CHANNEL: Final = 32


class ChangeRows:
    """Rows whose columns stay in place, however many come."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def write(self, event: TimedChange) -> None:
        """Print a change."""
        change = event.change
        style = "bold" if change.count else "dim"
        value = "expired" if change.ends_message else change.value
        cells = [
            cell(clock_time(event.at), "dim"),
            cell(change.channel, "cyan"),
            cell(change.message_timetoken, "dim"),
            cell(f"{change.count:,}", style),
            cell(value, style),
            cell(change.type, "dim"),
        ]
        print_row(self._console, COLUMNS, self._widths(), cells)

    def _widths(self) -> list[int]:
        """Return the widths of the columns; that of the channel takes what is left."""
        width = self._console.width
        widths = list(WIDE if width >= WIDE_FROM else NARROW)
        gaps = GAP * (len(widths) - 1)
        left = width - gaps - sum(widths)
        channel = widths[CHANNEL] + left
        widths[CHANNEL] = max(4, min(channel, LONGEST_CHANNEL))
        return widths

    def write_reset(self, event: Reset) -> None:
        """Print that changes may be missing."""
        self._console.print(cell(reset_line(event), "yellow"))
