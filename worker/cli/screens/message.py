"""``tally show`` on a terminal: one message."""

from functools import partial
from operator import attrgetter
from typing import Any, Final

from rich.console import Console

from reaction_tally import Reaction
from worker.cli.reading_reports import first_users
from worker.cli.screens.terminal import (
    Bar,
    Cell,
    Column,
    cell,
    print_rows,
    print_title,
    remove_column,
)
from worker.cli.times import ago, moment, time_of
from worker.reading.show import ShownMessage

COLUMNS: Final = (
    Column(most=1, least=0),
    Column(title="type", most=16),
    Column(title="value", most=24, least=4),
    Column(most=24, least=6),
    Column(title="count", is_right=True, least=5),
    Column(title="first users", most=40, least=10),
    Column(title="first", least=9, shown_from=80),
    Column(title="last", least=9, shown_from=80),
)
MINE: Final = "*"
OF_MINE: Final = ("bold cyan", "cyan")
OF_OTHERS: Final = ("", "yellow")
"""The styles of a name and of a bar."""
TYPE: Final = 1
"""The column of the type."""


def print_message(console: Console, shown: ShownMessage, now: float) -> None:
    """Print a message. ``now`` is in seconds since 1970."""
    message = shown.message
    published = time_of(message.timetoken)
    when = moment(published) if published else ""
    print_title(console, shown.channel, message.timetoken, when, ago(published, now, ""))
    if not message.reactions:
        console.print(cell("No reactions."))
        return
    most = max(map(attrgetter("count"), message.reactions))
    columns: list[Any] = list(COLUMNS)
    rows: list[list[Any]] = list(map(partial(_row, most, now), shown.by_type()))
    if len(message.counts) == 1:  # as nearly always: one type
        remove_column(columns, rows, TYPE)
    print_rows(console, columns, rows)


def _row(most: int, now: float, reaction: Reaction) -> list[Cell]:
    name, color = OF_MINE if reaction.mine else OF_OTHERS
    return [
        cell(MINE * reaction.mine, name),
        cell(reaction.type, "dim"),
        cell(reaction.value, name),
        Bar(reaction.count / most, color),
        cell(f"{reaction.count:,}", "bold"),
        cell(first_users(reaction)),
        cell(ago(time_of(reaction.first_at), now, ""), "dim"),
        cell(ago(time_of(reaction.last_at), now, ""), "dim"),
    ]
