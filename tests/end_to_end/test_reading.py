"""``tally show``, ``tally explain`` and ``tally doctor`` as processes.

All their output is tried in ``tests/commands/test_reading.py``.
"""

import asyncio

from tests.worlds import MESSAGE, ROOM, World


async def test_counts_are_shown_on_any_terminal(world: World) -> None:
    """An emoji becomes an escape where the encoding has none; for ASCII, click writes UTF-8."""
    world.react("🎉")
    await world.do("backfill")

    in_latin, in_ascii, explained, well = await asyncio.gather(
        world.do("show", ROOM, MESSAGE, PYTHONIOENCODING="latin-1"),
        world.do("show", ROOM, MESSAGE, PYTHONIOENCODING="ascii"),
        world.do("explain", ROOM, MESSAGE, PYTHONIOENCODING="utf-8"),
        world.do("doctor"),
    )

    assert in_latin.out == "reaction  \\U0001f389  1\n"
    assert in_ascii.out == "reaction  🎉  1\n"
    assert explained.out.splitlines()[1:] == [
        "Now: reaction  🎉  1: ana",
        "The journal holds every change since the channel was first counted.",
    ]
    assert [line[:5] for line in well.out.splitlines()] == [*["ok   "] * 9, "note "]
    for child in world.children:
        assert child.process.returncode == 0
        assert child.err == "" or child is world.children[0]
