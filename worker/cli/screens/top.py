"""``tally top`` on a terminal: the messages with the most reactions."""

from typing import Any, Final

from rich.console import Console

from worker.cli.reading_reports import values
from worker.cli.screens.terminal import (
    Bar,
    Cell,
    Column,
    cell,
    print_rows,
    print_title,
    remove_column,
)
from worker.cli.times import ago, time_of
from worker.reading.top import MESSAGES, RankedMessage, Top

COLUMNS: Final = (
    Column(is_right=True, least=2),
    Column(title="channel", most=30, least=6),
    Column(title="message", least=17),
    Column(title="published", least=9, shown_from=90),
    Column(most=16, least=6, shown_from=70),
    Column(title="count", is_right=True, least=5),
    Column(title="values", least=8),
)
CHANNEL: Final = 1
"""The column of the channel."""


def print_top(console: Console, top: Top, channel: str | None, now: float) -> None:
    """Print the top of a channel, or of all. ``now`` is in seconds since 1970."""
    if channel:
        print_title(console, channel, "the messages with the most reactions")
    if not top.messages:
        console.print(cell("No reactions."))
        return
    columns: list[Any] = list(COLUMNS)
    rows: list[list[Any]] = []
    most = top.messages[0].count
    for number, message in enumerate(top.messages, 1):
        rows.append(_row(number, message, message.count / most, now))
    if channel:
        remove_column(columns, rows, CHANNEL)
    print_rows(console, columns, rows)
    if not channel:
        console.print(cell(looked_at(top), "dim"))


def looked_at(top: Top) -> str:
    """Return which messages may be among the top of all channels."""
    return (
        f"Looked at the {MESSAGES} latest messages in each of {len(top.looked_at):,} channels, "
        f"those that changed last, of {top.known:,}."
    )


def _row(number: int, message: RankedMessage, part: float, now: float) -> list[Cell]:
    return [
        cell(number, "dim"),
        cell(message.channel, "cyan"),
        cell(message.timetoken, "dim"),
        cell(ago(time_of(message.timetoken), now, ""), "dim"),
        Bar(part),
        cell(f"{message.count:,}", "bold"),
        cell("  ".join(values(message.counts))),
    ]
