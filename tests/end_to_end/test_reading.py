"""``tally show``, ``tally explain`` and ``tally doctor`` as processes: what they print, and on which terminal.

All they say is tried in ``tests/commands/test_reading.py``.
"""

import asyncio

from tests.end_to_end.processes import MESSAGE, ROOM, Stage


async def test_what_was_counted_is_shown_on_any_terminal(stage: Stage) -> None:
    """An emoji is told in escapes where the encoding has none; where it is ASCII, click writes UTF-8 all the same."""
    stage.react("🎉")
    await stage.do("backfill")

    in_latin, in_ascii, explained, well = await asyncio.gather(
        stage.do("show", ROOM, MESSAGE, PYTHONIOENCODING="latin-1"),
        stage.do("show", ROOM, MESSAGE, PYTHONIOENCODING="ascii"),
        stage.do("explain", ROOM, MESSAGE, PYTHONIOENCODING="utf-8"),
        stage.do("doctor"),
    )

    assert in_latin.out == "reaction  \\U0001f389  1\n"
    assert in_ascii.out == "reaction  🎉  1\n"
    assert explained.out.splitlines()[1:] == [
        "Now: reaction  🎉  1: ana",
        "The journal holds every change since the channel was first counted.",
    ]
    assert [line[:5] for line in well.out.splitlines()] == ["ok   "] * 6
    for child in stage.children:
        assert child.process.returncode == 0
        assert child.err == "" or child is stage.children[0]
