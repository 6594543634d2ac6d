"""The screen of the demo: lines, and below them a live table."""

import io
import sys
from collections.abc import Mapping
from typing import Final, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from worker.demo.comparison import Message
from worker.domain.tally import Counts, by_count

MOST_ROWS: Final = 12
OTHER_LINES: Final = 9
"""Lines of a terminal that the table leaves to the other texts."""
WIDE: Final = 1_000
"""Columns where there is no terminal: nothing is cut."""


class Screen:
    """Lines, and a live table; in a file, the table comes only once."""

    def __init__(self, *, quiet: bool) -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A terminal without emoji shows question marks.
            sys.stdout.reconfigure(errors="replace")
        width = None if sys.stdout.isatty() else WIDE
        self._console = Console(
            quiet=quiet,
            highlight=False,
            width=width,
        )
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        is_shown = self._live.is_started
        self._live.stop()
        if is_shown and not self._console.is_terminal:
            # rich ends the last line on terminals only.
            self._console.line()

    def say(self, title: str, text: str) -> None:
        """Print one line above the table."""
        line = Text(f"{title:<10}", style="bold")
        line.append(text, style="not bold")
        self._console.print(line, soft_wrap=True)

    def show(self, counts: Mapping[Message, Counts], status: str) -> None:
        """Draw the busiest messages, and the status below."""
        free_lines = self._console.size.height - OTHER_LINES
        rows = max(1, min(MOST_ROWS, free_lines))
        footer = Text(status, style="dim", no_wrap=True, overflow="ellipsis")
        self._live.start()
        self._live.update(Group(_table(counts, rows), footer), refresh=True)


def _table(counts: Mapping[Message, Counts], rows: int) -> Table:
    """Return the messages with most reactions."""
    # The right side of a box would be crooked:
    # rich and terminals disagree about the width of an emoji.
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("channel", no_wrap=True, min_width=5)
    table.add_column("message", no_wrap=True, min_width=5, style="dim")
    table.add_column("counts in Redis", no_wrap=True, ratio=1)
    busiest = sorted(counts.items(), key=_most_reactions_first)
    for (channel, message), message_counts in busiest[:rows]:
        words = Text(_in_words(message_counts))
        table.add_row(channel, message, words)
    return table


def _most_reactions_first(item: tuple[Message, Counts]) -> tuple[int, Message]:
    message, counts = item
    return -sum(count for _, _, count in by_count(counts)), message


def _in_words(counts: Counts) -> str:
    """Return the counts of a message as text, for example ``👍 3  🎉 1``."""
    return "  ".join(f"{value} {count}" for _, value, count in by_count(counts))
