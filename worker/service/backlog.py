"""The work that is left, as Redis knows it."""

import asyncio
from dataclasses import dataclass
from typing import Final

from worker.domain.position import TICKS_PER_SECOND
from worker.errors import TallyError
from worker.store.pending_repairs import Marks
from worker.store.progress import Progress
from worker.store.tables import Tables

READING_SECONDS: Final = 5.0
"""Redis may take so long; ten thousand channels take a tenth of a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """The repairs, the backfills and the rounds of all channels."""

    channels: int
    now_milliseconds: int
    """Redis's clock."""
    repairs: dict[str, Marks]
    """Channel that needs a repair → causes."""
    backfills: dict[str, Progress]
    """Channel that has a backfill → how far it has come."""
    round_began: float | None
    """When the newest complete round began: Unix time."""

    @property
    def oldest_gap_seconds(self) -> float:
        """The age of the oldest gap; 0 if there is none."""
        times = [at for marks in self.repairs.values() for at in marks.values()]
        oldest = min(times, default=self.now_milliseconds)
        return max(0, self.now_milliseconds - oldest) / 1000


async def read_backlog(tables: Tables) -> Backlog | None:
    """Return the backlog; None if Redis does not answer soon."""
    try:
        async with asyncio.timeout(READING_SECONDS):
            return await _read(tables)
    except (TimeoutError, TallyError):
        return None
    except ValueError:  # another program has written under our keys
        return None


async def _read(tables: Tables) -> Backlog:
    channels = await tables.channels.all()
    began = await tables.rounds.read()
    return Backlog(
        channels=len(channels),
        now_milliseconds=await tables.server.now(),
        repairs=await tables.pending.read_all(channels),
        backfills=await tables.progress.read_all(channels),
        round_began=int(began) / TICKS_PER_SECOND if began else None,
    )
