"""What the spectator sees: a live table on a terminal, plain lines otherwise, or nothing."""

import io
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from worker.demo.comparison import Message
from worker.domain.tally import Counts

OTHER_LINES: Final = 9
"""Of a terminal's height, what the table leaves for heading, footer and the parts."""
MOST_ROWS: Final = 12


@dataclass(frozen=True, slots=True)
class Frame:
    """One moment: what Redis shows, and how far the crowd is."""

    counts: Mapping[Message, Counts]
    reactions: int
    elapsed: float
    seconds: float
    is_over: bool = False

    @property
    def footer(self) -> str:
        """How far the crowd is, in words."""
        busy = min(self.elapsed, self.seconds)
        pace = self.reactions / busy if busy else 0.0
        alive = sum(bool(counts) for counts in self.counts.values())
        return f"{self.reactions:,} reactions  {pace:.0f}/s  {alive} messages  {self.elapsed:.0f} s, {self._outlook}"

    @property
    def _outlook(self) -> str:
        if self.is_over:
            return "over"
        left = self.seconds - self.elapsed
        return f"{left:.0f} s to go" if left > 0 else "waiting for the last events"

    def busiest(self, rows: int) -> list[tuple[Message, str]]:
        """Return the messages with most reactions, each with its tallies in words."""
        ordered = sorted(self.counts.items(), key=lambda pair: (-_total(pair[1]), pair[0]))
        return [(message, _in_words(counts)) for message, counts in ordered[:rows] if counts]


class Screen:
    """Shows nothing: for those who want one JSON object."""

    every_seconds: float = 3.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave what was shown where it is."""

    def say(self, what: str, text: str) -> None:
        """Tell of a part, or of a result."""

    def show(self, frame: Frame) -> None:
        """Show a moment."""


class Lines(Screen):
    """Plain lines, for logs and pipes."""

    def say(self, what: str, text: str) -> None:
        """Print one line."""
        print(f"{what:<10}{text}" if what else text, flush=True)  # noqa: T201 - this is what the command is for

    def show(self, frame: Frame) -> None:
        """Print how far it is, and the busiest message."""
        busiest = "".join(
            f"; {channel} {message}: {words}" for (channel, message), words in frame.busiest(1)
        )
        self.say("", f"{frame.footer}{busiest}")


class Terminal(Lines):
    """A table that is redrawn in place; whatever is said goes above it."""

    every_seconds = 0.25

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(
            console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the cursor back, and leave the last table where it is."""
        self._live.stop()

    def say(self, what: str, text: str) -> None:
        """Print one line above the table."""
        self._console.print(
            Text(f"{what:<10}", style="bold").append(text, style="not bold"), soft_wrap=True
        )

    def show(self, frame: Frame) -> None:
        """Redraw the table."""
        self._live.start()
        rows = max(1, min(MOST_ROWS, self._console.size.height - OTHER_LINES))
        footer = Text(frame.footer, style="dim", no_wrap=True, overflow="ellipsis")
        self._live.update(Group(table(frame, rows), footer), refresh=True)


def table(frame: Frame, rows: int) -> Table:
    """Return the busiest messages as a table; on a narrow terminal its columns are cut, not broken."""
    # No box: a terminal that gives an emoji another width than rich does would break its right edge.
    drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    drawn.add_column("channel", no_wrap=True, min_width=5)
    drawn.add_column("message", no_wrap=True, style="dim", min_width=5)
    drawn.add_column("tallies in Redis", no_wrap=True, ratio=1)
    for (channel, message), words in frame.busiest(rows):
        drawn.add_row(Text(channel), Text(message), Text(words))
    return drawn


def screen(*, quiet: bool) -> Screen:
    """Return what suits standard output."""
    if quiet:
        return Screen()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(
            errors="replace"
        )  # a terminal that has no emoji shows question marks
    console = Console(highlight=False)
    # rich calls a pipe a terminal, too, where FORCE_COLOR is set.
    is_terminal = sys.stdout.isatty() and console.is_terminal and not console.is_dumb_terminal
    return Terminal(console) if is_terminal else Lines()


def _total(counts: Counts) -> int:
    return sum(count for values in counts.values() for count in values.values())


def _in_words(counts: Counts) -> str:
    pairs = [(count, value) for values in counts.values() for value, count in values.items()]
    return "  ".join(
        f"{value} {count}" for count, value in sorted(pairs, key=lambda pair: (-pair[0], pair[1]))
    )
