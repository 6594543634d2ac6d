"""How long the command line takes to start, beside an empty program of its kind."""

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

from reaction_tally.keys import SCHEMA, Keys
from tests.benchmarks.harness import Benchmark, Figure, Ratio, expect
from tests.redis_server import RedisServer
from worker.domain.action import Added, Identity, Origin
from worker.store.connection import connect
from worker.store.store import Store

STARTS: Final = 15
MESSAGE: Final = "17600000001728660"
EMPTY: Final = '''
import typer

app = typer.Typer(add_completion=False)

@app.command()
def nothing() -> None:
    """Do nothing."""

app()
'''
COMMANDS: Final = {
    "empty": ("-c", EMPTY, "--help"),
    "help": ("-m", "worker", "--help"),
    "show": ("-m", "worker", "show", "room", MESSAGE),
}
OUTPUT: Final = {
    "empty": "Do nothing.",
    "help": "Exact reaction counts for PubNub message actions",
    "show": "reaction  👍  2\n",
}


async def started(arguments: Sequence[str], environment: dict[str, str]) -> tuple[float, str]:
    """Run a program of Python's; return the milliseconds until it had ended, and what it said."""
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return 1000 * (time.perf_counter() - began), output.decode()


async def one_round(size: float) -> dict[str, float]:
    """Start each program in turn, so often; each has been compiled before."""
    server = RedisServer()
    environment = {
        **os.environ,
        "REDIS_URL": server.url,
        "PYTHONPATH": str(Path.cwd()),
        "PYTHONIOENCODING": "utf-8",
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    took: dict[str, list[float]] = {name: [] for name in COMMANDS}
    try:
        async with connect(server.url) as redis:
            added = [
                Added(Identity("room", MESSAGE, "reaction", "👍", uuid), "1", "1")
                for uuid in ("ana", "ben")
            ]
            await Store(redis, Keys()).apply_all([("room", added)], Origin.LIVE)
            await cast("Any", redis).hset(Keys().meta, "schema", SCHEMA)
        times = max(1, round(STARTS * size))
        for number in range(
            1 - min(times, 2), times
        ):  # a single one is no figure, and needs no start before it
            for name, arguments in COMMANDS.items():
                milliseconds, output = await started(arguments, environment)
                expect(True, OUTPUT[name] in output, name)
                took[name] += [milliseconds] if number >= 0 else []
    finally:
        server.stop()
    return {name: statistics.median(milliseconds) for name, milliseconds in took.items()}


BENCHMARK: Final = Benchmark(
    name="start",
    work=(
        f"Start a process and wait for its end, {STARTS} times in turn: `tally --help`, the help "
        "of an empty typer program, and `tally show` of a message on a Redis on this machine."
    ),
    lines=(
        Figure("empty", "the help of an empty typer program", "ms"),
        Figure("help", "tally --help", "ms"),
        Figure("show", "tally show CHANNEL MESSAGE_TIMETOKEN", "ms"),
        Ratio("help", "empty", "tally --help / empty", at_most=1.5),
        Ratio("show", "empty", "tally show / empty"),
    ),
    round=one_round,
)
