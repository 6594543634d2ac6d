"""A wait that a person can see."""

import asyncio
import sys
from typing import Final

import structlog
import typer

STEP_SECONDS: Final = 0.5
REASON: Final = "until no worker can hold an event that it read before"

log = structlog.get_logger(__name__)


def announce_second_pass(seconds: float) -> None:
    """Say that a verify looks again.

    On a terminal only errors are logged.
    """
    if not sys.stderr.isatty():
        log.info("verify_looks_again", seconds=seconds)
        return
    line = (
        "Something differs. "
        f"Looking again in {seconds:g} s: "
        "PubNub's lists may lag behind "
        "(TALLY_SETTLE_SECONDS)."
    )
    typer.echo(line, err=True)


async def wait_visibly(seconds: float) -> None:
    """Wait; say for how long, and why. On a terminal, show what is left."""
    if not sys.stderr.isatty():
        typer.echo(f"Waiting {seconds:.0f} s, {REASON}. Ctrl-C does no harm.", err=True)
        await asyncio.sleep(seconds)
        return
    await _count_down(seconds)


async def _count_down(seconds: float) -> None:
    from rich.console import Console  # noqa: PLC0415 - few commands wait
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    text = TextColumn("Waiting " + REASON)
    columns = (text, BarColumn(), TimeRemainingColumn())
    loop = asyncio.get_running_loop()
    began = loop.time()
    with Progress(*columns, console=Console(stderr=True)) as display:
        task = display.add_task("", total=seconds)
        while (passed := loop.time() - began) < seconds:
            display.update(task, completed=passed)
            await asyncio.sleep(min(STEP_SECONDS, seconds - passed))
        display.update(task, completed=seconds)
