"""The work that is left, as Redis knows it: read, measured, shown."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

from worker.domain.position import TICKS_PER_SECOND, Timetoken
from worker.errors import TallyError
from worker.store.pending_repairs import GapCause, Marks
from worker.store.progress import Progress
from worker.store.tables import Tables
from worker.telemetry import metrics

READING_SECONDS: Final = 5.0
"""Ten thousand channels take a tenth of a second."""
LISTED: Final = 1_000
"""``/status`` lists so many channels, by name."""


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

    def measure(self) -> None:
        """Set the metrics of the work that is left."""
        causes: Counter[str] = Counter()
        oldest = self.now_milliseconds
        for marks in self.repairs.values():
            causes.update(marks.keys())
            oldest = min([oldest, *marks.values()])
        for cause in GapCause:
            metrics.owed.labels(cause.value).set(causes[cause.value])
        metrics.owed_age.set((self.now_milliseconds - oldest) / 1000)
        metrics.channels.set(self.channels)
        metrics.backfills.set(len(self.backfills))
        if self.round_began is not None:
            metrics.round_began.set(self.round_began)

    def as_json(self) -> dict[str, Any]:
        """Return the work that is left, for ``/status``."""
        repairs = islice(sorted(self.repairs.items()), LISTED)
        backfills = islice(sorted(self.backfills.items()), LISTED)
        return {
            "channels": self.channels,
            "owed_channels": len(self.repairs),
            "owed": {channel: _times(marks) for channel, marks in repairs},
            "backfills": {channel: _reach(progress) for channel, progress in backfills},
            "last_round": _utc(self.round_began),
        }


def _times(marks: Marks) -> dict[str, str | None]:
    return {cause: _utc(at / 1000) for cause, at in marks.items()}


def _reach(progress: Progress) -> dict[str, Any]:
    return {
        "actions": progress.actions,
        "has_come_back_to": _moment(progress.next),
        "goes_back_to": _moment(progress.oldest),
    }


def _moment(timetoken: Timetoken | None) -> str | None:
    try:
        return _utc(int(timetoken) / TICKS_PER_SECOND) if timetoken else None
    except (ValueError, OverflowError):
        # Another program has written under our keys.
        return None


def _utc(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        # A client's timetoken may lie outside of the calendar.
        return None
    return moment.isoformat(timespec="seconds")


async def read_backlog(tables: Tables) -> Backlog | None:
    """Return the backlog; None if Redis does not answer soon."""
    try:
        async with asyncio.timeout(READING_SECONDS):
            channels = await tables.channels.all()
            began = await tables.rounds.read()
            return Backlog(
                channels=len(channels),
                now_milliseconds=await tables.server.now(),
                repairs=await tables.pending.read_all(channels),
                backfills=await tables.progress.read_all(channels),
                round_began=int(began) / TICKS_PER_SECOND if began else None,
            )
    except (TimeoutError, TallyError, ValueError):
        # ValueError: another program has written under our keys.
        return None
