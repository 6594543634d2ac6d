"""Commands as real processes: what they write, what they answer over HTTP, and how they end."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final

from tests.waiting import WAIT_SECONDS, wait_until

SETTING_PREFIXES: Final = ("PUBNUB_", "TALLY_", "REDIS_")


def environment(settings: Mapping[str, str | None]) -> dict[str, str]:
    """Return the environment of a command: no settings but these; one of None is left unset."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(SETTING_PREFIXES)
    }
    given = {name: value for name, value in settings.items() if value is not None}
    return inherited | given


class Child:
    """One ``tally`` command. Its output goes into files, because a full pipe would stop it."""

    def __init__(
        self,
        folder: Path,
        number: int,
        arguments: Iterable[str],
        settings: Mapping[str, str | None],
        wrapper: Sequence[str] = (),
    ) -> None:
        """``wrapper`` is a command that runs the command behind it."""
        self._out = folder / f"{number}.out"
        self._err = folder / f"{number}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [*wrapper, sys.executable, "-m", "worker", *arguments],
                cwd=folder,
                env=environment(settings),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    @property
    def out(self) -> str:
        """The text on standard output until now."""
        return self._out.read_text(errors="backslashreplace")

    @property
    def err(self) -> str:
        """The text on standard error until now."""
        return self._err.read_text(errors="backslashreplace")

    @property
    def is_alive(self) -> bool:
        """Whether the process still runs."""
        return self.process.poll() is None

    def tail(self) -> str:
        """Return the end of standard error, for the message of a failure."""
        return self.err[-3000:]

    def entries(self, event: str) -> list[dict[str, Any]]:
        """Return the log entries of that name."""
        return self.entries_of([event])

    def entries_of(self, events: Collection[str]) -> list[dict[str, Any]]:
        """Return the log entries of these names."""
        lines = self.err.splitlines(keepends=True)
        complete = [line for line in lines if line.startswith("{") and line.endswith("\n")]
        return [entry for entry in map(json.loads, complete) if entry["event"] in events]

    async def logs(self, event: str, seconds: float = WAIT_SECONDS, *, times: int = 1) -> None:
        """Wait until the log has so many entries of that name."""
        await wait_until(lambda: len(self.entries(event)) >= times, seconds, what=self.tail)

    def ask(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    async def get(self, path: str) -> tuple[int, str]:
        """Return status and text of one of a worker's pages, while all else goes on."""
        (address,) = self.entries("http_listens")
        return await asyncio.to_thread(_get, address["host"], address["port"], path)

    async def get_json(self, path: str) -> tuple[int, Any]:
        """Return status and JSON of one of a worker's pages."""
        status, body = await self.get(path)
        return status, json.loads(body)

    async def is_ready(self) -> bool:
        """Tell whether a worker says that its counts can be relied on."""
        status, _ = await self.get("/readyz")
        return status == 200

    async def figures(self) -> dict[str, float]:
        """Return the value of each series of a worker's metrics, named as there."""
        _, text = await self.get("/metrics")
        samples = [line for line in text.splitlines() if not line.startswith("#")]
        pairs = [line.rpartition(" ") for line in samples]
        return {series: float(value) for series, _, value in pairs}

    async def metric(self, series: str) -> float:
        """Return the value of one series, for example ``tally_ready{check="redis"}``."""
        return (await self.figures())[series]

    async def failing(self) -> set[str]:
        """Return the names of a worker's failing checks."""
        status, page = await self.get_json("/readyz")
        failing = {name for name, check in page["checks"].items() if not check["ok"]}
        expected = (503, False) if failing else (200, True)
        assert (status, page["ok"]) == expected
        return failing

    async def fails(self, checks: set[str]) -> None:
        """Wait until exactly these checks of a worker fail."""

        async def are_these() -> bool:
            return await self.failing() == checks

        await wait_until(are_these, what=self.tail)

    async def ended(self, seconds: float = WAIT_SECONDS) -> int:
        """Wait until the process has ended; return its exit code."""
        await wait_until(lambda: not self.is_alive, seconds, what=self.tail)
        return self.process.wait()

    async def stopped(self, seconds: float = WAIT_SECONDS) -> int:
        """Ask the process to stop, as a supervisor does; return its exit code."""
        self.ask(signal.SIGTERM)
        return await self.ended(seconds)

    async def killed(self) -> None:
        """End the process without a chance to do anything more."""
        self.process.kill()
        await self.ended()


def _get(host: str, port: int, path: str) -> tuple[int, str]:
    connection = HTTPConnection(host, port, timeout=WAIT_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()
