"""Whole commands and whole workers, in this process, on a stage."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.bench.in_process import APPLY_WAIT_SECONDS, Commands, Running
from tests.end_to_end.processes import Stage, wait_until


def commands(stage: Stage) -> Commands:
    """Return commands on this stage."""
    return Commands(stage.folder, stage.settings)


@asynccontextmanager
async def following(
    stage: Stage, *, polls: int = 1, **settings: str | None
) -> AsyncIterator[Running]:
    """Run a worker on this stage until the block ends.

    The block begins when so many polls wait.
    """
    already = stage.emulator.requests["subscribe"]
    async with commands(stage).worker(**settings) as worker:

        def listens() -> bool:
            return (
                stage.emulator.waiting >= polls
                and stage.emulator.requests["subscribe"] >= already + polls
            )

        await wait_until(
            lambda: worker.work.done() or listens(),
            APPLY_WAIT_SECONDS,
            what=lambda: worker.err[-3000:],
        )
        assert not worker.work.done(), worker.err
        yield worker
