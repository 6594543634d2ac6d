"""A real terminal obeys no stranger: a log, bars and printed lines, as processes show them.

``tests/commands/test_hostile_text.py`` tries every command, in one process.
"""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from tests.bench.hostile import (
    FOLLOWED,
    GROUP,
    MESSAGE,
    OUR_OWN,
    OVERRIDES,
    ROOM,
    TEXTS,
    expect_tame,
    write,
)
from tests.bench.in_process import A_TERMINAL
from tests.processes import environment
from tests.waiting import WAIT_SECONDS, Condition, wait_until
from tests.worlds import World


class OnTerminal:
    """A command whose output is a terminal, and what it has written there."""

    def __init__(self, world: World, arguments: tuple[str, ...]) -> None:
        self._end, theirs = os.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "worker", *arguments],
            cwd=world.folder,
            env=environment({**A_TERMINAL, **world.settings}),
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        self._written = bytearray()

    def read(self) -> None:
        """Read until the terminal is closed; otherwise the command could not write on."""
        with suppress(OSError):  # it is closed
            while part := os.read(self._end, 65536):
                self._written.extend(part)
        os.close(self._end)

    @property
    def text(self) -> str:
        """What it has written until now."""
        return self._written.decode(errors="replace")

    def entries(self, event: str) -> int:
        """Return how many entries of that name its log has."""
        plain = OUR_OWN.sub("", self.text)
        return len(re.findall(rf"^\S+ \[\w+ *\] {event} ", plain, re.MULTILINE))

    async def shows(self, condition: Condition) -> None:
        """Wait until the condition holds; a failure has the end of the text."""
        await wait_until(condition, what=lambda: ascii(self.text[-3000:]))


@asynccontextmanager
async def on_terminal(world: World, *arguments: str) -> AsyncIterator[OnTerminal]:
    """Run a command on a terminal, and wait in the end until it has ended."""
    shown = OnTerminal(world, arguments)
    reading = asyncio.create_task(asyncio.to_thread(shown.read))
    try:
        yield shown
        await asyncio.wait([reading], timeout=WAIT_SECONDS)
    finally:
        shown.process.kill()
        shown.process.wait()
        await reading


@pytest.mark.timeout(600)
async def test_a_terminal_obeys_no_stranger(world: World) -> None:
    """A log, progress bars and printed lines have our own colours, and else nothing but text."""
    world.settings |= {**FOLLOWED, "TALLY_LOG_LEVEL": "debug", "TALLY_LOG_FORMAT": "auto"}
    world.state.groups.add(GROUP, ["in\u2066side"])
    async with on_terminal(world, "run") as worker:
        await worker.shows(lambda: world.emulator.waiting)
        malformed = write(world.state)
        await world.settles()
        await worker.shows(lambda: worker.entries("quarantined") >= malformed)
        world.state.refuse(OVERRIDES, [GROUP])
        await worker.shows(lambda: worker.entries("pubnub_refused"))
        world.state.refuse()
        worker.process.send_signal(signal.SIGTERM)
    # One event is one entry, also if its text has many lines.
    assert (worker.entries("quarantined"), worker.entries("worker_stops")) == (malformed, 1)

    world.state.add(ROOM, MESSAGE, *["\x1b[5;35mblink\x1b[6n\n"] * 3, published=False)
    await world.redis.hset(f"tally:{{{ROOM}}}:counts:{MESSAGE}", f"{TEXTS[0]}:{TEXTS[3]}", 7)
    async with on_terminal(world, "backfill") as backfill, on_terminal(world, "doctor") as doctor:
        pass
    assert "actions read in" in backfill.text
    assert "\x1b[?25" in backfill.text  # a bar is drawn without a cursor
    assert "Redis: answers" in doctor.text
    for shown in (worker, backfill, doctor):
        expect_tame(shown.text, is_terminal=True)
        assert "Traceback" not in shown.text
