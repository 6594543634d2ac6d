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
from typing import Final

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
from tests.end_to_end.processes import OURS, Stage, wait_until

APPLY_WAIT_SECONDS: Final = 90.0


class OnTerminal:
    """A command whose output is a terminal, and what it has written there."""

    def __init__(self, stage: Stage, arguments: tuple[str, ...]) -> None:
        self._end, theirs = os.openpty()
        bare = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "worker", *arguments],
            cwd=stage.folder,
            env={**bare, **A_TERMINAL, **stage.settings},
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        self._told = bytearray()

    def read(self) -> None:
        """Read until nobody holds the terminal any more; the command could not write on otherwise."""
        with suppress(OSError):  # the last one has closed it
            while some := os.read(self._end, 65536):
                self._told.extend(some)
        os.close(self._end)

    @property
    def text(self) -> str:
        """What it has written until now."""
        return self._told.decode(errors="replace")

    def entries(self, event: str) -> int:
        """Return how many entries of that name its log has."""
        return len(
            re.findall(rf"^\S+ \[\w+ *\] {event} ", OUR_OWN.sub("", self.text), re.MULTILINE)
        )


@asynccontextmanager
async def on_terminal(stage: Stage, *arguments: str) -> AsyncIterator[OnTerminal]:
    """Run a command on a terminal, and wait in the end until it has ended."""
    shown = OnTerminal(stage, arguments)
    reading = asyncio.create_task(asyncio.to_thread(shown.read))
    try:
        yield shown
        await asyncio.wait([reading], timeout=APPLY_WAIT_SECONDS)
    finally:
        shown.process.kill()
        shown.process.wait()
        await reading


@pytest.mark.timeout(600)
async def test_no_terminal_obeys_strangers(stage: Stage) -> None:
    """A worker's log, the bars of a backfill, the lines of a doctor: our own colours, and nothing else but text."""
    stage.settings |= {**FOLLOWED, "TALLY_LOG_LEVEL": "debug", "TALLY_LOG_FORMAT": "auto"}
    stage.state.groups.add(GROUP, ["in\u2066side"])
    async with on_terminal(stage, "run") as worker:

        def what() -> str:
            return ascii(worker.text[-3000:])

        await wait_until(lambda: stage.emulator.waiting, APPLY_WAIT_SECONDS, what=what)
        malformed = write(stage.state)
        await stage.settles(APPLY_WAIT_SECONDS)
        await wait_until(
            lambda: worker.entries("quarantined") >= malformed, APPLY_WAIT_SECONDS, what=what
        )
        stage.state.refuse(OVERRIDES, [GROUP])
        await wait_until(lambda: worker.entries("pubnub_refused"), APPLY_WAIT_SECONDS, what=what)
        stage.state.refuse()
        worker.process.send_signal(signal.SIGTERM)
    # One event, one entry: however many lines it would like to be.
    assert (worker.entries("quarantined"), worker.entries("worker_stops")) == (malformed, 1)

    stage.state.add(ROOM, MESSAGE, *["\x1b[5;35mblink\x1b[6n\n"] * 3, published=False)
    await stage.redis.hset(f"tally:{{{ROOM}}}:counts:{MESSAGE}", f"{TEXTS[0]}:{TEXTS[3]}", 7)
    async with on_terminal(stage, "backfill") as backfill, on_terminal(stage, "doctor") as doctor:
        pass
    assert "actions read in" in backfill.text
    assert "\x1b[?25" in backfill.text  # a bar is drawn without a cursor
    assert "Redis: answers" in doctor.text
    for shown in (worker, backfill, doctor):
        expect_tame(shown.text, is_terminal=True)
        assert "Traceback" not in shown.text
