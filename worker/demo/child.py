"""A process of the demo's own: started with an environment that says everything, ended for certain."""

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NoReturn, Self

from worker.errors import FatalError
from worker.telemetry.text import escape

START_SECONDS: Final = 30.0
END_SECONDS: Final = 15.0  # longer than the worker may take to drain
LAST_LINES: Final = 8

# All a process needs to find its program, its libraries and its language. Nothing of the user's settings.
KEPT: Final = (
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
)
CODE: Final = Path(__file__).parents[2]


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a deployment: these settings, whatever the user's own shell has set."""
    # A checkout that is not installed works too: from the temporary folder Python would not find it.
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(CODE))))
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return {**kept, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **settings}


class Child:
    """One ``python -m worker …``. Make it with ``start``; ``end`` it in any case."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, words: Path) -> None:
        self.name = name
        self._process = process
        self._words = words

    @classmethod
    async def start(
        cls, name: str, arguments: list[str], folder: Path, settings: Mapping[str, str]
    ) -> Self:
        """Start it in this folder, out of reach of our terminal's Ctrl-C: we end it when its time has come."""
        words = folder / f"{name}.log"
        with words.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "worker", *arguments),
                cwd=folder,
                env=environment(settings),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        return cls(name, process, words)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def first_line(self) -> str:
        """Return the first line it prints.

        Raises:
            FatalError: it ends or says nothing instead.
        """
        assert self._process.stdout is not None  # noqa: S101 - for mypy: we asked for a pipe
        try:
            async with asyncio.timeout(START_SECONDS):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise FatalError(
                f"The {self.name} says nothing for {START_SECONDS:g} s. {self._last_words()}"
            ) from None
        if not line:
            await self.watch()
        return line.decode().strip()

    async def watch(self) -> NoReturn:
        """Wait until it ends by itself, which it must not.

        Raises:
            FatalError: it ended; the sentence has its last words.
        """
        status = await self._process.wait()
        raise FatalError(
            f"The {self.name} ended before its time, status {status}. {self._last_words()}"
        )

    async def end(self) -> None:
        """Ask it to end; after a while, make it. Returns when it is gone."""
        if self._process.returncode is None:
            self._process.terminate()
        try:
            async with asyncio.timeout(END_SECONDS):
                await self._process.communicate()
        except TimeoutError:
            pass
        finally:  # a cancelled end is an end, too
            if self._process.returncode is None:
                self._process.kill()
                await self._process.wait()

    def _last_words(self) -> str:
        lines = self._words.read_text(errors="replace").splitlines()[-LAST_LINES:]
        return (
            "\n".join(["Its last words:", *(f"  {escape(line)}" for line in lines)])
            if lines
            else "It left no word."
        )
