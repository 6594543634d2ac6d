"""Can Redis be read, does it take writes, do counts stay exact there?

Pages that ask at the same time share an answer.
"""

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

import structlog

from worker.errors import (
    MissingPermissionError,
    RedisUnfitError,
    TallyError,
)
from worker.store.tables import Tables
from worker.telemetry.health import CHECK_SECONDS
from worker.telemetry.throttled_warning import ThrottledWarning

FRESH_SECONDS: Final = 3.0
"""For so long an answer serves every page. Each check writes to Redis."""
ANSWER_SECONDS: Final = CHECK_SECONDS - 0.1
"""A little sooner than a page gives up, so that it has this answer."""
NO_ANSWER: Final = f"no answer in {CHECK_SECONDS:g} s"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """What Redis answered to one check."""

    problem: str | None = None
    """Why it does not answer."""
    write_problem: str | None = None
    """Why it takes no writes."""
    is_readable: bool = False


class RedisCheck:
    """The newest answer of Redis: it changes when a check ends, and not while one runs."""

    def __init__(
        self,
        tables: Tables,
        clock: Callable[[], float],
        *,
        allow_eviction: bool = False,
    ) -> None:
        """``tables`` raise when Redis is away."""
        self._server = tables.server
        self._clock = clock
        self._allow_eviction = allow_eviction
        self._unfit: str | None = None
        """Why Redis is unfit, as it said last: one that is away says nothing."""
        self._warning = ThrottledWarning(
            log,
            "redis_unfit",
            "redis_fit_again",
            clock,
        )
        self._due_at = -math.inf
        """When Redis is asked again; never while it is asked."""
        self._running: asyncio.Task[None] | None = None
        self._answer = Answer()

    @property
    def is_readable(self) -> bool:
        """Whether Redis could be read. One that takes no writes may be read."""
        return self._answer.is_readable

    async def problem(self) -> str | None:
        """Return why Redis does not answer; None if it does."""
        await self._ask()
        return self._answer.problem

    async def write_problem(self) -> str | None:
        """Return why Redis takes no writes; None if it does."""
        await self._ask()
        return self._answer.write_problem

    async def fitness_problem(self) -> str | None:
        """Return why counts would not stay exact; None if they do."""
        await self._ask()
        return self._unfit

    async def _ask(self) -> None:
        if self._clock() >= self._due_at:
            self._due_at = math.inf
            self._running = asyncio.create_task(self._run())
        if self._running:
            # Other pages wait for it, too, when this one gives up.
            await asyncio.shield(self._running)

    async def _run(self) -> None:
        # If the time is over, this is what is known so far.
        answer = Answer(NO_ANSWER, NO_ANSWER)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_SECONDS):
                    answer = await self._read()
                    if answer.problem is None:
                        problem = await self._write()
                        answer = replace(answer, write_problem=problem)
                        await self._check_fitness()
        finally:
            self._answer = answer
            self._due_at = self._clock() + FRESH_SECONDS

    async def _read(self) -> Answer:
        try:
            await self._server.now()
        except MissingPermissionError:
            # A refusal is an answer. Writes fail with the right that is missing.
            return Answer(write_problem=NO_ANSWER)
        except TallyError as error:
            return Answer(str(error), str(error))
        return Answer(write_problem=NO_ANSWER, is_readable=True)

    async def _write(self) -> str | None:
        try:
            await self._server.check_writes()
        except TallyError as error:
            return str(error)
        return None

    async def _check_fitness(self) -> None:
        try:
            await self._server.check_fitness(
                allow_eviction=self._allow_eviction,
            )
        except RedisUnfitError as error:
            self._unfit = str(error)
            self._warning.failing(reason=self._unfit)
        except TallyError:
            return
        else:
            self._unfit = None
            self._warning.recovered()
