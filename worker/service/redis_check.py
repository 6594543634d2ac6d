"""Can Redis be read, and does it take writes? Pages that ask at the same time share an answer."""

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from worker.errors import MissingPermissionError, TallyError
from worker.store.tables import Tables
from worker.telemetry.health import CHECK_SECONDS

FRESH_SECONDS: Final = 3.0
"""For so long an answer serves every page. Each check writes to Redis."""
ANSWER_SECONDS: Final = CHECK_SECONDS - 0.1
"""A little sooner than a page gives up, so that it has this answer."""


class RedisCheck:
    """The newest answer of Redis: it changes when a check ends, and not while one runs."""

    def __init__(
        self,
        tables: Tables,
        clock: Callable[[], float],
    ) -> None:
        """``tables`` raise when Redis is away."""
        self._server = tables.server
        self._clock = clock
        self._due_at = -math.inf
        """When Redis is asked again; never while it is asked."""
        self._running: asyncio.Task[None] | None = None
        self._is_answered = False
        self._is_read = False
        self._problem: str | None = None
        self._write_problem: str | None = None
        self.is_readable = False
        """Whether Redis could be read. One that takes no writes may be read."""

    async def problem(self) -> str | None:
        """Return why Redis does not answer; None if it does."""
        await self._ask()
        return self._problem

    async def write_problem(self) -> str | None:
        """Return why Redis takes no writes; None if it does."""
        await self._ask()
        return self._write_problem

    async def _ask(self) -> None:
        if self._clock() >= self._due_at:
            self._due_at = math.inf
            self._running = asyncio.create_task(self._run())
        if self._running:
            # Other pages wait for it, too, when this one gives up.
            await asyncio.shield(self._running)

    async def _run(self) -> None:
        self._is_answered = self._is_read = False
        try:
            problem = await self._failure()
        finally:
            self._due_at = self._clock() + FRESH_SECONDS
        self._problem = None if self._is_answered else problem
        self._write_problem = problem
        self.is_readable = self._is_read

    async def _failure(self) -> str | None:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._read()
                await self._server.check_writes()
        except TallyError as error:
            return str(error)
        except TimeoutError:
            return f"no answer in {CHECK_SECONDS:g} s"
        return None

    async def _read(self) -> None:
        # A refusal is an answer. Writes fail with the right that is missing.
        with suppress(MissingPermissionError):
            await self._server.now()
            self._is_read = True
        self._is_answered = True
