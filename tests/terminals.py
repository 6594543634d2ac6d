"""Commands on a terminal of their own: what they draw, and where."""

import asyncio
import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from tests.processes import environment
from tests.waiting import wait_until

CONTROL: Final = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])")
COLOR: Final = re.compile(r"\x1b\[[0-9;]*m")
COLUMN: Final = re.compile(r"\x1b\[(\d+)G")


class Terminal:
    """A command, and the terminal that it draws on."""

    def __init__(
        self,
        folder: Path,
        arguments: tuple[str, ...],
        settings: Mapping[str, str | None],
        columns: int = 100,
    ) -> None:
        """Start the command on a terminal of so many columns."""
        self._own, terminal = os.openpty()
        os.set_blocking(self._own, False)
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self._drawn = bytearray()
        variables = {
            "TERM": "xterm-256color",
            "COLUMNS": None,
            "NO_COLOR": None,
            "FORCE_COLOR": None,
            "PYTHONIOENCODING": "utf-8",
            **settings,
        }
        inherited = environment(variables)
        for name, value in variables.items():
            if value is None:
                inherited.pop(name, None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "worker", *arguments],
            cwd=folder,
            env=inherited,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            preexec_fn=partial(os.login_tty, terminal),  # noqa: PLW1509 - it must obey Ctrl-C
        )
        os.close(terminal)

    @property
    def drawn(self) -> str:
        """All that was drawn until now, with its control sequences."""
        with suppress(BlockingIOError, OSError):
            while part := os.read(self._own, 65_536):
                self._drawn.extend(part)
        return self._drawn.decode(errors="backslashreplace").replace("\r\n", "\n")

    @property
    def text(self) -> str:
        """The text that was drawn, without control sequences."""
        return CONTROL.sub("", self.drawn)

    async def shows(self, text: str) -> None:
        """Wait until a text is drawn."""
        await wait_until(lambda: text in self.text, what=lambda: self.drawn)

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        os.write(self._own, b"\x03")

    async def ended(self) -> int:
        """Wait for the end; return the exit code."""
        await wait_until(lambda: self.drawn and self.process.poll() is not None)
        await asyncio.sleep(0)
        return int(self.process.returncode)

    def close(self) -> None:
        """End the command."""
        self.process.kill()
        self.process.wait()
        os.close(self._own)


def columns_of(line: str) -> list[int]:
    """Return where the cursor is put within a line: whatever the texts before it are wide."""
    return list(map(int, COLUMN.findall(line)))
