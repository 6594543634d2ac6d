"""What the demo starts: a Valkey, the emulator and the worker."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn
from urllib.parse import unquote, urlsplit

from worker.demo.plan import Plan
from worker.emulator import Emulator
from worker.errors import FatalError
from worker.store.embedded import embedded_server
from worker.telemetry.text import escape

END_SECONDS: Final = 15.0
"""How long the worker may take to end. It may drain for 10 s."""
SHOWN_LINES: Final = 8
WORKER_LOG: Final = "worker.log"
KEPT_VARIABLES: Final = ("PATH", "LD_LIBRARY_PATH", "HOME", "LANG")
"""Variables that the worker inherits. No setting of the user is among them."""
CODE: Final = Path(__file__).parents[2]

Say = Callable[[str, str], None]
"""Shows one line: a title and a text."""


@dataclass(frozen=True, slots=True)
class Processes:
    """All that runs."""

    emulator: Emulator
    redis_url: str
    redis_cli: str
    """A command that connects to Redis."""
    worker: "WorkerProcess"


@asynccontextmanager
async def started_processes(
    plan: Plan, folder: Path, channels: Sequence[str], say: Say
) -> AsyncIterator[Processes]:
    """Start everything in this folder. End it when the context ends.

    Raises:
        ConfigurationError: no Valkey is installed.
        RedisUnfitError: Valkey does not start.
    """
    async with embedded_server(folder / "valkey") as redis_url:
        redis_cli = f"redis-cli -s {unquote(urlsplit(redis_url).path)}"
        say("Valkey", redis_cli)

        async with Emulator(seed=plan.seed, faults=plan.faults) as emulator:
            say("PubNub", f"an emulator at http://{emulator.origin}, {_faults(plan)}")

            settings = {
                "PUBNUB_ORIGIN": emulator.origin,
                "PUBNUB_TLS": "false",
                "PUBNUB_SUBSCRIBE_KEY": "demo",
                "REDIS_URL": redis_url,
                "TALLY_CHANNELS": ",".join(channels),
                "TALLY_LOG_LEVEL": "warning",
                "TALLY_HTTP": "off",
            }
            async with started_worker(folder, settings) as worker:
                say("Worker", f"python -m worker run, process {worker.pid}")
                yield Processes(emulator, redis_url, redis_cli, worker)


class WorkerProcess:
    """The worker as it is deployed: a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

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
        if self._process.returncode is None:
            self._process.terminate()
        try:
            async with asyncio.timeout(END_SECONDS):
                await self._process.wait()
        except TimeoutError:
            pass
        finally:  # also after a cancellation
            if self._process.returncode is None:
                self._process.kill()
                await self._process.wait()


@asynccontextmanager
async def started_worker(folder: Path, settings: Mapping[str, str]) -> AsyncIterator[WorkerProcess]:
    """Start the worker in this folder, with these settings only.

    Ctrl-C in the terminal does not reach it.
    """
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
    worker = WorkerProcess(process, log)
    try:
        yield worker
    finally:
        await worker.end()


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name in KEPT_VARIABLES}
    # In a temporary folder, Python does not find a checkout by itself.
    paths = [os.environ.get("PYTHONPATH", ""), str(CODE)]
    path = os.pathsep.join(filter(None, paths))
    return {**inherited, "PYTHONPATH": path, **settings}


def _faults(plan: Plan) -> str:
    rates = [f"{name} {rate:g}" for name, rate in plan.faults.items()]
    faults = ", ".join(rates) or "none"
    return f"seed {plan.seed}, faults: {faults}"
