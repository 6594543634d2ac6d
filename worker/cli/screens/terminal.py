"""A terminal: its colours, rows whose columns stay in place, and bars."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter, sub
from typing import Any, Final

from rich.console import Console
from rich.control import Control
from rich.text import Text

from worker.telemetry.text import escape

GAP: Final = 2
"""Cells between two columns."""
BLOCKS: Final = " ▏▎▍▌▋▊▉█"
"""Eighths of a cell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a screen. Widths are in cells."""

    title: str = ""
    least: int = 3
    most: int = 1_000
    is_right: bool = False
    shown_from: int = 0
    """Narrower terminals have no room for it."""


def terminal() -> Console | None:
    """Return the terminal that standard output is; None if it is none, or has no UTF-8.

    It has no colours if ``NO_COLOR`` is set.
    """
    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    is_drawable = console.is_terminal and not console.options.ascii_only
    return console if is_drawable else None


def cell(text: object, style: str = "") -> Text:
    """Return a text of others, fit for a terminal."""
    return Text(escape(str(text)), style)


@dataclass(frozen=True, slots=True)
class Bar:
    """A cell with a bar, which fills a part of its column."""

    part: float
    style: str = "yellow"

    def drawn(self, width: int) -> Text:
        """Return the bar: at least an eighth of a cell."""
        eighths = max(1, round(8 * width * self.part))
        whole, rest = divmod(eighths, 8)
        return Text("█" * whole + BLOCKS[rest].strip(), self.style)


Cell = Text | Bar


def print_title(console: Console, name: str, *details: str) -> None:
    """Print a name and what belongs to it, in one line."""
    title = Text()
    title.append(escape(name), "bold")
    for detail in filter(None, details):
        title.append("  ")
        title.append(escape(detail), "dim")
    console.print(title, no_wrap=True, overflow="ellipsis")


def print_rows(
    console: Console,
    columns: Sequence[Column],
    rows: Iterable[Sequence[Cell]],
) -> None:
    """Print rows under their titles, as wide as the terminal allows."""
    chosen: list[Any] = list(columns)
    cells: list[list[Any]] = [list(map(_title, columns)), *map(list, rows)]
    for number in reversed(range(len(columns))):
        if console.width < columns[number].shown_from:
            remove_column(chosen, cells, number)
    widths = fit(chosen, cells, console.width)
    for row in cells:
        print_row(console, chosen, widths, row)


def _title(column: Column) -> Text:
    return Text(column.title, "dim")


def remove_column(columns: list[Any], rows: Iterable[list[Any]], number: int) -> None:
    """Remove a column, and its cell of each row."""
    for row in (columns, *rows):
        del row[number]


def fit(
    columns: Sequence[Column],
    rows: Sequence[Sequence[Cell]],
    width: int,
) -> list[int]:
    """Return how wide each column is, so that all fit into the terminal."""
    wanted = [map(_cells, row, columns) for row in rows]
    most = map(attrgetter("most"), columns)
    least = map(attrgetter("least"), columns)
    widths = list(map(min, most, map(max, zip(*wanted, strict=True))))
    spare = list(map(sub, widths, least))
    left = width - GAP * (len(columns) - 1) - sum(widths)
    while left < 0 < max(spare):
        widest = spare.index(max(spare))
        spare[widest] -= 1
        widths[widest] -= 1
        left += 1
    return widths


def _cells(cell: Cell, column: Column) -> int:
    """Return how wide a cell would be; a bar takes all that there is."""
    return column.most if isinstance(cell, Bar) else cell.cell_len


def print_row(
    console: Console,
    columns: Sequence[Column],
    widths: Sequence[int],
    cells: Sequence[Cell],
) -> None:
    """Print one row.

    Terminals disagree about the width of combined emoji.
    So the cursor is put where the next column begins.
    """
    start = 0
    for column, width, cell in zip(columns, widths, cells, strict=True):
        if start and not console.is_dumb_terminal:
            console.control(Control.move_to_column(start))
        text = cell.drawn(width) if isinstance(cell, Bar) else cell
        shown = _cut(text, width, column)
        start += width + GAP
        if start < console.width:
            shown.append(" " * GAP)
        console.print(shown, end="", no_wrap=True, overflow="ignore", crop=False)
    console.print()


def _cut(text: Text, width: int, column: Column) -> Text:
    """Return a text that fills its column."""
    shown = text.copy()
    shown.truncate(width, overflow="ellipsis")
    shown.align("right" if column.is_right else "left", width)
    return shown
