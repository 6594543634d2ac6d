"""``tally channels`` on a terminal."""

from functools import partial
from typing import Final

from rich.console import Console
from rich.text import Text

from worker.cli.reading_reports import channels_sum
from worker.cli.screens.terminal import Cell, Column, cell, print_rows
from worker.cli.times import age, ago
from worker.reading.channels import ChannelList, ListedChannel

COLUMNS: Final = (
    Column(title="channel", most=40, least=10),
    Column(title="changed", least=9),
    Column(title="messages", is_right=True, least=8, shown_from=80),
    Column(title="owed", least=12),
    Column(title="proven", least=9, shown_from=56),
    Column(title="in full", least=9, shown_from=80),
)


def print_channels(console: Console, listed: ChannelList, now: float) -> None:
    """Print channels. ``now`` is in seconds since 1970."""
    rows = map(partial(_row, now), listed.channels)
    print_rows(console, COLUMNS, rows)
    console.print(cell(channels_sum(listed), "dim"))
    if listed.no_worker:
        console.print(cell(listed.no_worker, "bold red"))


def _row(now: float, row: ListedChannel) -> list[Cell]:
    proof = row.proof
    return [
        cell(row.channel, "bold"),
        cell(ago(proof.changed, now)),
        cell(f"{row.messages:,}"),
        _owed(row, now),
        cell(ago(proof.recent, now)),
        cell(ago(proof.whole, now)),
    ]


def _owed(row: ListedChannel, now: float) -> Text:
    """Return the causes; red if no worker repairs all of them in time."""
    if not row.owed:
        return cell("nothing", "green")
    style = "bold red" if row.is_late else "yellow"
    causes = map(partial(_cause, now), row.owed.items())
    return cell(", ".join(causes), style)


def _cause(now: float, mark: tuple[str, int]) -> str:
    """Return a cause, and since when it is owed; that may be unknown."""
    cause, at = mark
    since = age(at, now) if at else "?"
    return f"{cause} {since}"
