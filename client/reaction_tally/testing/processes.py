"""Commands of the worker's distribution, as processes. The client does not import the worker."""

import json
import os
import shutil
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from reaction_tally.testing.errors import NotInstalledError, ServiceFailedError

COMMAND: Final = "tally"
KEPT_VARIABLES: Final = ("PATH", "LD_LIBRARY_PATH", "HOME", "LANG", "TMPDIR")
"""What a process inherits: no setting, no proxy, and no folder with another ``worker``."""
WAIT_SECONDS: Final = 60.0
"""How long a start or a change may take. Usually it is a part of a second."""
END_SECONDS: Final = 20.0
"""How long a process may take to end. The worker may drain for 10 s."""
LOOK_SECONDS: Final = 0.005
SHOWN_LINES: Final = 12

Found = TypeVar("Found")


def find_command() -> str:
    """Return the path of ``tally``: beside this Python, or on the PATH.

    Raises:
        NotInstalledError: there is none.
    """
    scripts = sysconfig.get_path("scripts")
    found = shutil.which(COMMAND, path=scripts) or shutil.which(COMMAND)
    if found:
        return found
    raise NotInstalledError(
        "tally_service runs the command tally, which is missing here. It is in the distribution "
        "reaction-tally-worker. In a checkout: pip install './client' '.[embedded]'"
    )


class Process:
    """A command that runs, and what it has written."""

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        settings: Mapping[str, str],
    ) -> None:
        """Start it. Ctrl-C does not reach it: it ends when the block does."""
        self.name = " ".join(["tally", *command[1:2]])
        self._output = folder / f"{command[1]}.log"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - a command of this project
                command,
                cwd=folder,
                env=_environment(settings),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.id = self._process.pid

    def expect_life(self) -> None:
        """Make sure that it still runs.

        Raises:
            ServiceFailedError: it has ended. The text has its last lines.
        """
        status = self._process.poll()
        if status is not None:
            raise self.failure(f"has ended, with status {status}")

    def failure(self, problem: str) -> ServiceFailedError:
        """Return an error that has the last lines of the output."""
        shown = self.lines()[-SHOWN_LINES:]
        text = "\n  ".join([f"{self.name} {problem}.", *shown])
        return ServiceFailedError(text)

    def lines(self) -> list[str]:
        """Return the complete lines that it has written."""
        text = self._output.read_text(encoding="utf-8", errors="replace")
        complete, _, _ = text.rpartition("\n")
        return complete.splitlines()

    def entry(self, event: str) -> dict[str, Any] | None:
        """Return the first entry of this name in its log."""
        for line in self.lines():
            if line.startswith("{"):
                entry: dict[str, Any] = json.loads(line)
                if entry["event"] == event:
                    return entry
        return None

    def end(self) -> None:
        """End it in order; kill it if that takes too long."""
        self._process.terminate()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:  # also after Ctrl-C
            self._process.kill()
            self._process.wait()


def wait_for(
    find: Callable[[], Found | None],
    *processes: Process,
) -> Found:
    """Return what ``find`` finds, as soon as it finds something.

    Raises:
        ServiceFailedError: a process ended before, or the last one takes too long.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        found = find()
        if found is not None:
            return found
        for process in processes:
            process.expect_life()
        if time.monotonic() > deadline:
            raise processes[-1].failure(f"is not done after {WAIT_SECONDS:g} s")
        time.sleep(LOOK_SECONDS)


@contextmanager
def running(
    words: Sequence[str],
    folder: Path,
    settings: Mapping[str, str],
) -> Iterator[Process]:
    """Run ``tally`` with these words in this folder, until the block ends."""
    command = [find_command(), *words]
    process = Process(command, folder, settings)
    try:
        yield process
    finally:
        process.end()


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name in KEPT_VARIABLES}
    return {**inherited, **settings}
