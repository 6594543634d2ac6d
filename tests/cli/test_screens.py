"""Screens: columns that stay in place, colours only where they are wanted, text that stays text."""

import io
import re
from typing import Final

import pytest
from rich.cells import cell_len
from rich.console import Console

from reaction_tally import Change, Message, Reaction, Reset
from tests.bench.hostile import TEXTS, expect_tame
from tests.terminals import CONTROL, columns_of
from worker.cli.screens.changes import ChangeRows
from worker.cli.screens.channels import print_channels
from worker.cli.screens.message import print_message
from worker.cli.screens.top import print_top
from worker.reading.channels import ChannelList, ListedChannel
from worker.reading.past import TimedChange
from worker.reading.show import ShownMessage
from worker.reading.top import RankedMessage, Top
from worker.store.heartbeat import no_worker
from worker.store.proofs import Proof

EMOJI: Final = (
    "👍",
    "❤",
    "❤️",
    "👍🏽",
    "👨‍👩‍👧",
    "🏳️‍🌈",
    "🇩🇪",
    "1️⃣",
    "é",
    "e\u0301",
    "한국",
    "नि",
    "ASCII",
)
"""Wide, combined, with a selector, a tone or a joiner; and letters of one and two cells."""
NOW: Final = 1_770_000_000.0
MESSAGE: Final = "17699999000000000"


def console(width: int = 100, **options: object) -> Console:
    """Return a terminal that keeps what is drawn."""
    settings: dict[str, object] = {"force_terminal": True, "color_system": "256", **options}
    return Console(
        file=io.StringIO(),
        width=width,
        highlight=False,
        markup=False,
        emoji=False,
        **settings,  # type: ignore[arg-type]
    )


def drawn(terminal: Console) -> str:
    """Return what was drawn."""
    assert isinstance(terminal.file, io.StringIO)
    return terminal.file.getvalue()


def message_of(*values: str, users: tuple[str, ...] = ("ana",), count: int = 3) -> ShownMessage:
    """Return a message that has these values."""
    reactions = [
        Reaction(
            type="reaction",
            value=value,
            count=count,
            first_at=MESSAGE,
            last_at=MESSAGE,
            names=users,
            mine=not number,
        )
        for number, value in enumerate(values)
    ]
    return ShownMessage(
        channel="room",
        message=Message(MESSAGE, tuple(reactions)),
        is_known=True,
        in_doubt=False,
        position="1-0",
    )


def channels_of(*names: str) -> ChannelList:
    """Return a list of channels."""
    listed = [
        ListedChannel(
            channel=name,
            proof=Proof(1, 1, int(1000 * NOW)),
            owed={"stale_cursor": int(1000 * NOW)},
            is_late=False,
            messages=7,
        )
        for name in names
    ]
    return ChannelList(
        channels=tuple(listed),
        known=9,
        matching=9,
        owed=2,
        heartbeat_age=7200.0,
        no_worker=no_worker(7200.0),
    )


def top_of(*values: str) -> Top:
    """Return messages, each with one of these values."""
    messages = [RankedMessage(value, MESSAGE, 3, {"reaction": {value: 3}}) for value in values]
    return Top(messages=tuple(messages), in_doubt=frozenset(), looked_at=values, known=99)


def test_columns_stay_in_place_on_every_terminal() -> None:
    """Whatever a terminal takes an emoji for, the cursor is put where the next column begins."""
    terminal = console()
    print_message(terminal, message_of(*EMOJI), NOW)

    _title, *rows = drawn(terminal).splitlines()
    assert len({tuple(columns_of(row)) for row in rows}) == 1
    assert len(columns_of(rows[0])) == 6


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_a_dumb_terminal_has_columns_too(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """They are filled with spaces, by the cells that rich counts."""
    monkeypatch.setenv("TERM", "dumb")
    terminal = console(width, color_system=None)
    print_message(terminal, message_of(*EMOJI), NOW)

    _, _, *rows = drawn(terminal).splitlines()
    starts = {cell_len(row[: row.index("3  ana")]) for row in rows}
    assert len(starts) == 1
    assert "\x1b" not in drawn(terminal)


@pytest.mark.parametrize("width", [60, 61, 79, 80, 89, 100, 250])
def test_no_row_is_wider_than_the_terminal(width: int) -> None:
    """Sixty columns are enough, however long the texts are."""
    long = ("x" * 300, "한" * 100, *EMOJI)
    terminal = console(width)
    print_message(terminal, message_of(*long, users=long, count=1_000_000), NOW)
    print_top(terminal, top_of(*long), None, NOW)
    print_top(terminal, top_of(*long), long[0], NOW)
    print_channels(terminal, channels_of(*long), NOW)
    rows = ChangeRows(terminal)
    for text in long:
        rows.write(change_of(text))

    for line in drawn(terminal).splitlines():
        assert cell_len(CONTROL.sub("", line).rstrip()) <= width, line


def change_of(text: str) -> TimedChange:
    """Return a change of this value in a channel of this name."""
    change = Change(
        channel=text,
        message_timetoken=MESSAGE,
        type=text,
        value=text,
        count=3,
        position="1-0",
    )
    return TimedChange(change, 1_770_000_000_000)


def test_hostile_text_is_drawn_as_text() -> None:
    """No control sequence, no direction, no markup of rich."""
    terminal = console(200)
    print_message(terminal, message_of(*TEXTS, users=TEXTS), NOW)
    print_top(terminal, top_of(*TEXTS), None, NOW)
    print_top(terminal, top_of(*TEXTS), TEXTS[0], NOW)
    print_channels(terminal, channels_of(*TEXTS), NOW)
    rows = ChangeRows(terminal)
    for text in TEXTS:
        rows.write(change_of(text))
        rows.write_reset(Reset(text, "1-0"))

    expect_tame(drawn(terminal), is_terminal=True)
    assert "[red]markup[/red]" in drawn(terminal)


def test_what_is_mine_is_marked() -> None:
    """By a star, not only by a colour."""
    terminal = console()
    print_message(terminal, message_of("🎉", "👍"), NOW)

    mine, other = CONTROL.sub("", drawn(terminal)).splitlines()[2:]
    assert (mine[0], other[0]) == ("*", " ")


def test_without_colours_no_colour_is_drawn() -> None:
    """NO_COLOR is honoured by rich; bold and dim are no colours."""
    terminal = console(no_color=True)
    print_message(terminal, message_of("👍"), NOW)
    print_channels(terminal, channels_of("room"), NOW)

    styles = re.findall(r"\x1b\[([0-9;]*)m", drawn(terminal))
    assert set(";".join(styles).split(";")) <= {"0", "1", "2"}


def test_bars_say_how_much_more() -> None:
    """The longest fills its column, and the least is still seen."""
    terminal = console()
    big, small = message_of("👍", count=100_000), message_of("🎉", count=1)
    both = Message(MESSAGE, (*big.message.reactions, *small.message.reactions))
    shown = ShownMessage(
        channel="room", message=both, is_known=True, in_doubt=False, position="1-0"
    )
    print_message(terminal, shown, NOW)

    first, second = drawn(terminal).splitlines()[2:]
    assert first.count("█") == 24
    assert (second.count("█"), second.count("▏")) == (0, 1)
