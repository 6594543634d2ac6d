"""What the demo starts: a Valkey, the emulator and the worker."""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn
from urllib.parse import unquote, urlsplit

from worker.demo.credentials import Credentials
from worker.emulator import Emulator
from worker.errors import FatalError
from worker.store.embedded import embedded_server
from worker.telemetry.text import escape

END_SECONDS: Final = 15.0
"""How long the worker may take to end. It may drain for 10 s."""
SHOWN_LINES: Final = 8
WORKER_LOG: Final = "worker.log"
BOARD_LINE: Final = re.compile(r'"http_listens".*}$')
"""The entry of the log that has the address: a line that is whole."""
KEPT_VARIABLES: Final = ("PATH", "LD_LIBRARY_PATH", "HOME", "LANG")
"""The variables that the worker inherits: no setting."""
CODE: Final = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Processes:
    """All that runs. ``redis_cli`` is a command that connects to Redis."""

    emulator: Emulator
    redis_url: str
    redis_cli: str
    worker: "WorkerProcess"


@asynccontextmanager
async def started_processes(
    emulator: Emulator,
    folder: Path,
    channels: Sequence[str],
    credentials: Credentials,
) -> AsyncIterator[Processes]:
    """Start everything in this folder. End it when the context ends.

    The worker sends these credentials.

    Raises:
        ConfigurationError: no Valkey is installed.
        RedisUnfitError: Valkey does not start.
    """
    async with embedded_server(folder / "valkey") as redis_url, emulator:
        settings = {
            "PUBNUB_ORIGIN": emulator.origin,
            "PUBNUB_TLS": "false",
            "PUBNUB_SUBSCRIBE_KEY": "demo",
            "REDIS_URL": redis_url,
            "TALLY_CHANNELS": ",".join(channels),
            "TALLY_LOG_FORMAT": "json",
            "TALLY_HTTP": "127.0.0.1:0",
            "TALLY_BOARD": "on",
            **credentials.settings(),
        }
        worker = await WorkerProcess.start(folder, settings)
        try:
            redis_cli = f"redis-cli -s {unquote(urlsplit(redis_url).path)}"
            yield Processes(emulator, redis_url, redis_cli, worker)
        finally:
            await worker.end()


class WorkerProcess:
    """The worker as it is deployed: a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.pid = process.pid
        self._process = process
        self._log = log

    @classmethod
    async def start(cls, folder: Path, settings: Mapping[str, str]) -> "WorkerProcess":
        """Start it with these settings only. Ctrl-C does not reach it."""
        log = folder / WORKER_LOG
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "worker", "run"),
                cwd=folder,
                env=_environment(settings),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        return cls(process, log)

    def board(self) -> str | None:
        """Return the address of the worker's board; None before it listens."""
        lines = self._log.read_text(errors="replace").splitlines()
        for line in filter(BOARD_LINE.search, lines):
            entry = json.loads(line)
            return f"http://{entry['host']}:{entry['port']}/board"
        return None

    async def watch(self) -> NoReturn:
        """Wait until the worker ends by itself, which is an error.

        Raises:
            FatalError: it ended. The text has the last lines of its log.
        """
        status = await self._process.wait()
        lines = self._log.read_text(errors="replace").splitlines()[-SHOWN_LINES:]
        problem = f"The worker ended before its time, status {status}."
        raise FatalError("\n  ".join([problem, *map(escape, lines)]))

    async def end(self) -> None:
        """End the worker with SIGTERM, and with SIGKILL if it takes too long."""
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(END_SECONDS):
                    await self._process.wait()
        finally:  # also after a cancellation
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name in KEPT_VARIABLES}
    # In a temporary folder, Python does not find a checkout by itself.
    paths = [os.environ.get("PYTHONPATH", ""), str(CODE)]
    path = os.pathsep.join(filter(None, paths))
    return {**inherited, "PYTHONPATH": path, **settings}
