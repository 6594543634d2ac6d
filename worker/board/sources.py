"""Where the board takes what it shows."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from reaction_tally import AsyncTallyReader
from worker.board.plots import Counters
from worker.board.summary import Status
from worker.store.journal import Journal
from worker.store.tables import Tables


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where the board takes what it shows. Everything here only reads."""

    reader: AsyncTallyReader
    tables: Tables
    """They raise when Redis is away."""
    journal: Journal
    status: Callable[[], Awaitable[Status]]
    """Returns what ``/status`` of a worker has; without one, only ``redis`` and ``no_worker``."""
    counters: Callable[[], Awaitable[Counters | None]]
    """Returns the counters of a worker; None if none answers."""
