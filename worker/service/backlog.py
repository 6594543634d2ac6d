"""The work that is left, as Redis knows it: read, measured, shown."""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from heapq import nsmallest
from itertools import islice
from typing import Any, Final, Self

from worker.domain.position import TICKS_PER_SECOND, Timetoken
from worker.errors import TallyError
from worker.reconciliation.schedule import Load
from worker.service.redis_check import RedisCheck
from worker.store.pending_repairs import GapCause, Marks
from worker.store.progress import Progress
from worker.store.proofs import Ages
from worker.store.redis_server import Memory
from worker.store.tables import Tables
from worker.telemetry import metrics

READING_SECONDS: Final = 30.0
"""Ten thousand channels take a tenth of a second."""
FIRST_SECONDS: Final = 5.0
"""How long a page waits for the backlog, if there is none yet."""
WAIT_SECONDS: Final = 0.1
"""How long a page waits for a newer backlog."""
PACE: Final = 20
"""After a reading of a second, the next one is twenty seconds later."""
LISTED: Final = 1_000
"""``/status`` lists so many channels, by name."""


@dataclass(frozen=True, slots=True)
class Owed:
    """The marks of all channels, counted once: the pages are asked for more often."""

    channels: int
    causes: Counter[str]
    oldest: int | None
    """The time of the oldest mark; None if there is none, or none is known."""
    listed: dict[str, Marks]
    """Some of the channels, by name."""

    @classmethod
    def of(cls, repairs: Mapping[str, Marks]) -> Self:
        """Count these marks."""
        causes: Counter[str] = Counter()
        times: list[int] = []
        for marks in repairs.values():
            causes.update(marks.keys())
            times += filter(None, marks.values())
        oldest = min(times, default=None)
        listed = nsmallest(LISTED, repairs)
        named = {channel: repairs[channel] for channel in listed}
        return cls(len(repairs), causes, oldest, named)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """The repairs, the backfills and the rounds: of all channels, or of those of a shard."""

    channels: int
    now_milliseconds: int
    """Redis's clock."""
    owed: Owed
    backfills: dict[str, Progress]
    """Channel that has a backfill → how far it has come."""
    round_began: float | None
    """When the newest complete round began: Unix time."""
    recent: Ages
    """How long ago the recent past of channels was compared."""
    whole: Ages
    """How long ago channels were compared as a whole."""
    memory: Memory
    """Of Redis."""

    @property
    def never_proven(self) -> int:
        """Channels that were never compared as a whole."""
        return max(0, self.channels - self.whole.channels)

    def measure(self, age: float) -> None:
        """Set the metrics; the backlog was read ``age`` seconds ago."""
        owed = self.owed
        for cause in GapCause:
            metrics.owed.labels(cause.value).set(owed.causes[cause.value])
        oldest = owed.oldest or self.now_milliseconds
        owed_age = (self.now_milliseconds - oldest) / 1000
        metrics.owed_age.set(max(0.0, owed_age) + age if owed.channels else 0)
        metrics.channels.set(self.channels)
        metrics.redis_memory.set(self.memory.used)
        metrics.redis_memory_limit.set(self.memory.limit)
        metrics.backfills.set(len(self.backfills))
        if self.round_began is not None:
            metrics.round_began.set(self.round_began)
        metrics.never_proven.set(self.never_proven)
        looks = {"recent": self.recent, "whole": self.whole}
        for look, ages in looks.items():
            metrics.unproven.labels(look, "max").set(ages.longest)
            metrics.unproven.labels(look, "0.99").set(ages.ninety_nine)

    def as_json(self) -> dict[str, Any]:
        """Return the work that is left, for ``/status``."""
        repairs = self.owed.listed.items()
        backfills = islice(sorted(self.backfills.items()), LISTED)
        return {
            "channels": self.channels,
            "owed_channels": self.owed.channels,
            "owed": {channel: _times(marks) for channel, marks in repairs},
            "backfills": {channel: _reach(progress) for channel, progress in backfills},
            "last_round": _utc(self.round_began),
            "never_proven": self.never_proven,
            "unproven_seconds": {
                "recent": _ages(self.recent),
                "whole": _ages(self.whole),
            },
        }


def _ages(ages: Ages) -> dict[str, float]:
    return {"max": ages.longest, "0.99": ages.ninety_nine}


def _times(marks: Marks) -> dict[str, str | None]:
    return {cause: _utc(at / 1000 or None) for cause, at in marks.items()}


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
            known = await tables.channels.own()
            # To read and to sort very many names stops the loop for a while each.
            await asyncio.sleep(0)
            channels = sorted(known)
            began = await tables.rounds.read()
            now = await tables.server.now()
            ages = tables.proofs.unproven
            if tables.channels.share.shard:
                ages = partial(tables.proofs.unproven_of, channels)
            return Backlog(
                channels=len(channels),
                now_milliseconds=now,
                owed=Owed.of(await tables.pending.read_all(channels)),
                backfills=await tables.progress.read_all(channels),
                round_began=int(began) / TICKS_PER_SECOND if began else None,
                recent=await ages(now, is_whole=False),
                whole=await ages(now, is_whole=True),
                memory=await tables.server.memory(),
            )
    except (TimeoutError, TallyError, ValueError):
        # ValueError: another program has written under our keys.
        return None


class BacklogReader:
    """Keeps the newest backlog: a page costs the same for any number.

    A page lets it be read again, not too often,
    and waits for it for a moment only.
    """

    def __init__(
        self,
        tables: Tables,
        clock: Callable[[], float],
        *,
        allow_eviction: bool = False,
    ) -> None:
        """``tables`` raise when Redis is away."""
        self._tables = tables
        self._clock = clock
        self._newest: tuple[Backlog, float] | None = None
        """The newest backlog, and when it was read."""
        self._due_at = -math.inf
        """When it is read again; never while it is being read."""
        self._reading: asyncio.Task[None] | None = None
        self.redis = RedisCheck(
            tables,
            clock,
            allow_eviction=allow_eviction,
        )

    async def newest(self) -> tuple[Backlog, float] | None:
        """Return the newest backlog, if any, and its age in seconds."""
        if self._clock() >= self._due_at:
            self._due_at = math.inf
            self._reading = asyncio.create_task(self._read())
        if self._reading:
            seconds = WAIT_SECONDS if self._newest else FIRST_SECONDS
            await asyncio.wait([self._reading], timeout=seconds)
        if self._newest is None:
            return None
        backlog, read_at = self._newest
        return backlog, self._clock() - read_at

    async def _read(self) -> None:
        began = self._clock()
        backlog = await read_backlog(self._tables)
        now = self._clock()
        self._due_at = now + PACE * (now - began)
        if backlog:
            self._newest = backlog, began


def rounds_status(load: Load | None) -> dict[str, Any] | None:
    """Return what rounds cost; None before the first one."""
    if load is None:
        return None
    return {
        "channels": load.channels,
        "active": load.active,
        "requests_an_hour": round(load.requests_an_hour),
        "minutes_an_hour": round(load.minutes_an_hour, 1),
        "problem": load.problem,
    }
