"""Commands in this process, as ``python -m worker`` runs them, in a tenth of the time.

A command finds its own environment, folder, standard output and standard error.
What it does to the logs of this process is undone. It runs in a thread with a loop of its own,
so that PubNub and Redis can be in the test's loop.
"""

import asyncio
import io
import json
import logging
import os
import signal
import sys
import warnings
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import structlog

from tests.waiting import WAIT_SECONDS
from worker.cli.main import main
from worker.errors import ExitCode
from worker.service.commands import run_worker
from worker.settings.checks import FOLLOW, load, warn_of_unknown
from worker.source import backoff, reachability
from worker.telemetry.logs import configure

OURS: Final = ("PUBNUB_", "TALLY_", "REDIS_")
A_TERMINAL: Final = {"TERM": "xterm-256color", "COLUMNS": "200"}


class Screen(io.TextIOWrapper):
    """Keeps what is written to it; a test says whether it is a terminal."""

    def __init__(self, *, is_terminal: bool) -> None:
        self._kept = io.BytesIO()
        self._is_terminal = is_terminal
        super().__init__(self._kept, encoding="utf-8", write_through=True)

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._is_terminal

    @property
    def text(self) -> str:
        """All that was written."""
        return self._kept.getvalue().decode(errors="backslashreplace")


@dataclass(frozen=True)
class Ended:
    """A command that has ended, and its output."""

    line: tuple[str, ...]
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Running:
    """A worker that runs in this process, and its output."""

    work: asyncio.Task[ExitCode]
    screens: tuple[Screen, Screen]

    @property
    def out(self) -> str:
        """The standard output until now."""
        return self.screens[0].text

    @property
    def err(self) -> str:
        """The standard error until now."""
        return self.screens[1].text

    def entries(self, event: str) -> list[dict[str, Any]]:
        """Return its log entries of that name; they are JSON."""
        return [
            entry for entry in map(json.loads, self.err.splitlines()) if entry["event"] == event
        ]


class Commands:
    """Commands with these settings, in this folder.

    ``ended`` has all that were run.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.folder = folder
        self.settings = dict(settings)
        self.ended: list[Ended] = []

    async def do(self, *line: str, **settings: str | None) -> Ended:
        """Run a command to its end. A setting of None is left unset."""
        return await self._do(line, settings, is_terminal=False)

    async def do_on_a_terminal(self, *line: str, **settings: str | None) -> Ended:
        """Run a command that takes its output for a terminal."""
        return await self._do(line, {**A_TERMINAL, **settings}, is_terminal=True)

    @asynccontextmanager
    async def worker(self, **settings: str | None) -> AsyncIterator[Running]:
        """Run ``tally run`` in this loop, because only the main thread receives signals.

        Ask it to stop in the end.
        """
        with self._as_a_process(("run",), settings, is_terminal=False) as screens:
            wanted = load(FOLLOW)  # as `tally run` does
            configure(wanted.log_format, wanted.log_level)
            warn_of_unknown(wanted)
            running = Running(asyncio.create_task(run_worker(wanted)), screens)
            try:
                yield running
            finally:
                await _stop(running.work)
        self.ended.append(Ended(("run",), running.work.result(), running.out, running.err))

    async def _do(
        self, line: tuple[str, ...], settings: Mapping[str, str | None], *, is_terminal: bool
    ) -> Ended:
        self.ended.append(await asyncio.to_thread(self._run, line, settings, is_terminal))
        return self.ended[-1]

    def _run(
        self, line: tuple[str, ...], settings: Mapping[str, str | None], is_terminal: bool
    ) -> Ended:
        with self._as_a_process(line, settings, is_terminal=is_terminal) as (out, err):
            with pytest.raises(SystemExit) as ended:
                main()
            return Ended(line, int(ended.value.code or 0), out.text, err.text)

    @contextmanager
    def _as_a_process(
        self, line: tuple[str, ...], settings: Mapping[str, str | None], *, is_terminal: bool
    ) -> Iterator[tuple[Screen, Screen]]:
        out, err = Screen(is_terminal=is_terminal), Screen(is_terminal=is_terminal)
        wanted: dict[str, str | None] = {**self.settings, **settings}
        with pytest.MonkeyPatch.context() as this:
            for name in [name for name in os.environ if name.startswith(OURS)]:
                this.delenv(name)
            for name, value in wanted.items():
                if value is not None:
                    this.setenv(name, value)
            this.chdir(self.folder)
            this.setattr(sys, "argv", ["tally", *line])
            this.setattr(sys, "stdout", out)
            this.setattr(sys, "stderr", err)
            # As in a new process: no handler takes what libraries log, not even pytest's.
            this.setattr(logging.getLogger(), "handlers", [])
            # The worker changes this; it is put back at the end.
            this.setattr(warnings, "showwarning", warnings.showwarning)
            this.setattr(backoff, "FIRST_SECONDS", 0.001)  # PubNub is asked again soon
            this.setattr(reachability, "PROBE_SECONDS", 0.01)
            structlog.reset_defaults()
            try:
                yield out, err
            finally:
                structlog.reset_defaults()


async def _stop(work: asyncio.Task[ExitCode]) -> None:
    """Ask the worker to stop, as a supervisor does; leave no signal handler behind."""
    loop = asyncio.get_running_loop()
    try:
        if not work.done():
            await asyncio.sleep(0)  # from its first step on it handles signals
            signal.raise_signal(signal.SIGTERM)
            await asyncio.wait([work], timeout=WAIT_SECONDS)
    finally:
        work.cancel()
        await asyncio.wait([work])
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)
