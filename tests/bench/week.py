"""A week of rounds over many channels, on virtual time: what they cost, and when losses are found.

    python -m tests.bench.week --channels 100000

Rounds and their schedule are the worker's own. PubNub, Redis and the reconciler are figures:
which channel changed when, what was lost, and how many requests a look takes.
"""

import argparse
import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, cast
from unittest.mock import patch

import structlog

from tests.simulation.loop import START, VirtualLoop, running
from worker.domain.position import TICKS_PER_SECOND, Range, from_seconds, milliseconds
from worker.reconciliation import rounds
from worker.reconciliation.report import ReconcileReport
from worker.reconciliation.schedule import DAY, HOUR, Activity, Schedule
from worker.store.proofs import Proof

WEEK: Final = 7 * DAY
SCHEDULE: Final = Schedule(HOUR, DAY, WEEK, 20)
ACTIVE: Final = 0.02
"""The part of the channels that change within an hour."""
REGULARS: Final = 0.5
"""The part of these that change hour by hour. The others are visited once, at random."""
LOSSES: Final = 0.02
"""Events lost in an hour, for each active channel."""
LIMITS: Final = {"active": HOUR, "quiet": DAY, "removal": WEEK}
"""Kind of a loss → in how many seconds it is found."""
LAG_SECONDS: Final = 2.0
"""How long PubNub's lists lag behind."""
SETTLE_SECONDS: Final = 60.0
ANSWER_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Loss:
    """An event that no worker received."""

    at: float
    kind: str
    is_old: bool = False
    """Whether only a look at everything finds it."""


@dataclass(slots=True)
class Week:
    """What happened."""

    requests: Counter[int] = field(default_factory=Counter)
    """Hour → requests."""
    delays: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Kind of a loss → seconds until it was found."""
    left: list[Loss] = field(default_factory=list)
    """Losses that were not found in time to be."""
    unproven: defaultdict[str, tuple[float, float]] = field(
        default_factory=lambda: defaultdict(lambda: (0.0, 0.0))
    )
    """Look → the unproven seconds when they were most: the longest, and of 99 in a hundred."""
    estimate: float = 0.0
    """The requests an hour that the worker expects."""
    rounds: int = 0
    """Rounds that made all their looks."""


class Rooms:
    """Channels, and what happens in them."""

    def __init__(self, count: int, random: Random, losses: float) -> None:
        self._losses = losses * ACTIVE * count
        self.names = [f"room-{number}" for number in range(count)]
        self.changed: dict[str, float] = {}
        self.lost: defaultdict[str, list[Loss]] = defaultdict(list)
        self._random = random
        active = round(ACTIVE * count)
        self._regulars = self.names[: round(REGULARS * active)]
        self._visits = active - len(self._regulars)
        for name in self.names:
            # As if visited at random for long.
            self.changed[name] = START - random.expovariate(self._visits / count / HOUR)

    async def live(self) -> None:
        """Let users come and go, and events be lost, for ever."""
        steps = 60
        while True:
            await asyncio.sleep(HOUR / steps)
            now = running().time()
            for name in self._some(self._regulars, 2 * len(self._regulars) / steps):
                self.changed[name] = now
            for name in self._some(self.names, self._visits / steps):
                self.changed[name] = now
            for _ in range(self._count(self._losses / steps)):
                self._lose(now)

    def _lose(self, now: float) -> None:
        draw = self._random.random()
        activity, name = None, ""
        wanted = Activity.ACTIVE if draw < 0.4 else Activity.QUIET
        while activity is not wanted:
            name = self._random.choice(self.names if draw >= 0.2 else self._regulars)
            changed = round(1000 * self.changed[name])
            activity = SCHEDULE.activity(changed, round(1000 * now))
        kind = "removal" if draw > 0.7 else wanted.name.lower()
        self.lost[name].append(Loss(now, kind, is_old=draw > 0.7))

    def _some(self, names: list[str], count: float) -> list[str]:
        return [self._random.choice(names) for _ in range(self._count(count))]

    def _count(self, expected: float) -> int:
        return int(expected) + (self._random.random() < expected % 1)


class Proofs:
    """The table of the worker, as far as rounds use it."""

    def __init__(self, rooms: Rooms) -> None:
        self.recent: dict[str, int] = {}
        self.whole: dict[str, int] = {}
        self._rooms = rooms

    def note(self, report: ReconcileReport, wanted: Range) -> None:
        """Note a look; after a prune the next look at everything is due soon."""
        channel, until = report.channel, milliseconds(report.proven_until)
        self.recent[channel] = until
        whole = SCHEDULE.recheck(channel, until) if report.pruned else until
        if wanted == Range():
            self.whole[channel] = whole
        elif report.pruned:
            self.whole[channel] = min(self.whole[channel], whole)

    async def read(self, channel: str) -> Proof:
        """Return what is known of a channel."""
        recent, whole = self.recent.get(channel, 0), self.whole.get(channel, 0)
        return Proof(recent, whole, round(1000 * self._rooms.changed[channel]))

    async def scan(self, channels: Collection[str], ahead: int) -> AsyncIterator[tuple[str, Proof]]:
        """Yield what is known of each channel."""
        assert ahead == 0
        for channel in channels:
            yield channel, await self.read(channel)

    def ages(self, proven: Mapping[str, int], now: float) -> list[float]:
        """Return for how many seconds each channel was not proven."""
        return sorted(now - proven.get(channel, 0) / 1000 for channel in self._rooms.names)


class Figures:
    """Everything else that rounds use: tables, repair queue and reconciler."""

    def __init__(self, rooms: Rooms, rate: float, week: Week) -> None:
        self.proofs = Proofs(rooms)
        self.channels = self.pending = self.server = self.rounds = self
        self._rooms = rooms
        self._interval = 1 / rate
        self._whole_at = START
        self._week = week

    def clock(self) -> float:
        """Return the time."""
        return running().time()

    async def all(self) -> list[str]:
        """Return the channels ever seen."""
        return self._rooms.names

    async def own(self) -> list[str]:
        """Return those of this shard: there is one."""
        return await self.all()

    async def read_all(self, _: Collection[str]) -> dict[str, Any]:
        """Return what is owed: nothing."""
        return {}

    async def now(self) -> int:
        """Return the time of Redis."""
        return round(1000 * self.clock())

    async def pubnub_time(self) -> str:
        """Return PubNub's time."""
        return from_seconds(self.clock())

    async def save(self, _: str) -> None:
        """Note that a round is complete."""
        self._week.rounds += 1

    def nudge(self, channels: Collection[str]) -> None:
        """Repair nothing."""

    async def channel(
        self,
        channel: str,
        wanted: Range,
    ) -> ReconcileReport:
        """Look at a channel: requests by what is listed, and what was lost is found."""
        began = self.clock()
        since = int(wanted.since) / TICKS_PER_SECOND if wanted.since else 0
        await self._request(3 if self._rooms.changed[channel] >= since else 1)
        horizon = from_seconds(began - SETTLE_SECONDS)
        report = ReconcileReport(channel=channel, proven_until=horizon)
        found = [
            loss
            for loss in self._rooms.lost[channel]
            if loss.at + LAG_SECONDS <= began and (wanted == Range() or not loss.is_old)
        ]
        if any(loss.is_old for loss in found):
            await asyncio.sleep(SETTLE_SECONDS)
            await self._request(1)
            report.pruned = 1
        for loss in found:
            self._rooms.lost[channel].remove(loss)
            self._week.delays[loss.kind].append(self.clock() - loss.at)
            self._rooms.changed[channel] = self.clock()
        self.proofs.note(report, wanted)
        return report

    async def measure(self) -> None:
        """Note the unproven seconds, for ever: the longest, and of 99 in a hundred."""
        while True:
            await asyncio.sleep(HOUR / 2)
            proofs = self.proofs
            for look, proven in (("recent", proofs.recent), ("whole", proofs.whole)):
                ages = proofs.ages(proven, self.clock())
                ninety_nine = ages[int(0.99 * len(ages))]
                figures = self._week.unproven[look]
                self._week.unproven[look] = max(figures, (ages[-1], ninety_nine))

    async def _request(self, count: int) -> None:
        for _ in range(count):
            self._whole_at = max(self._whole_at, self.clock()) + self._interval
            self._week.requests[int((self.clock() - START) // HOUR)] += 1
            await asyncio.sleep(self._whole_at - self.clock() + ANSWER_SECONDS)


async def live(rooms: Rooms, rate: float, days: float, random: Random, *, fresh: bool) -> Week:
    """Let rounds run for so many days, and return what happened."""
    week = Week()
    figures = Figures(rooms, rate, week)
    for name in [] if fresh else rooms.names:
        # As rounds leave it: everything in the last week, the recent past in the last day.
        now = await figures.now()
        whole = now - round(1000 * random.uniform(0, SCHEDULE.full_interval(random.random())))
        is_visited = now - 1000 * rooms.changed[name] < 1000 * DAY
        recent = now - round(1000 * random.uniform(0, HOUR / 2 if is_visited else DAY))
        figures.proofs.whole[name] = whole
        figures.proofs.recent[name] = max(whole, recent)
    parts = cast("Any", figures)
    making = rounds.Rounds(parts, parts, parts, figures.pubnub_time, SCHEDULE, random)
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(rooms.live()),
            group.create_task(making.run()),
            group.create_task(figures.measure()),
        ]
        await asyncio.sleep(days * DAY)
        for task in tasks:
            task.cancel()
    week.estimate = making.load.requests_an_hour if making.load else 0
    week.left = [loss for lost in rooms.lost.values() for loss in lost]
    return week


def play(
    channels: int,
    rate: float,
    days: float = 7,
    *,
    losses: float = LOSSES,
    fresh: bool = False,
    seed: int = 0,
) -> Week:
    """Play some days; return what happened. ``fresh``: no channel was ever proven."""
    configured = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    try:
        loop = VirtualLoop(Random(seed), most_steps=10**10)
        random = Random(seed)
        rooms = Rooms(channels, random, losses)
        # A slower budget has fewer looks under way, else each of them would take an hour.
        concurrency = max(4, round(rounds.CONCURRENCY * rate / 20))
        with patch.object(rounds, "CONCURRENCY", concurrency):
            return loop.run(live(rooms, rate, days, random, fresh=fresh))
    finally:
        structlog.configure(**configured)


def overdue(week: Week, days: float = 7) -> list[Loss]:
    """Return the losses that nobody found, and that should have been."""
    end = START + days * DAY
    return [loss for loss in week.left if end - loss.at > LIMITS[loss.kind]]


def figures_of(week: Week, rate: float, days: float) -> list[str]:
    """Return the figures, line by line."""
    hours = [week.requests[hour] for hour in range(round(24 * days))]
    mean, budget = sum(hours) / len(hours), rate * HOUR
    lines = [
        f"requests an hour: mean {mean:.0f}, most {max(hours)}, budget {budget:.0f}",
        f"the worker expects {week.estimate:.0f}; {week.rounds} complete rounds",
    ]
    for kind, delays in sorted(week.delays.items()):
        ordered = [seconds / 60 for seconds in sorted(delays)]
        late = ordered[int(0.99 * len(ordered))]
        lines.append(
            f"{kind}: {len(ordered)} found, 99 % in {late:.0f} min, all in {ordered[-1]:.0f}"
        )
    for look, (longest, ninety_nine) in week.unproven.items():
        lines.append(
            f"{look} unproven at most {longest / HOUR:.1f} h, 99 % {ninety_nine / HOUR:.1f} h"
        )
    return [*lines, f"not found in time: {len(overdue(week, days))}"]


def main() -> None:
    """Play it, and print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--channels", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--days", type=float, default=7.0)
    parser.add_argument("--fresh", action="store_true", help="no channel was ever proven")
    chosen = parser.parse_args()
    week = play(chosen.channels, chosen.rate, chosen.days, fresh=chosen.fresh)
    print(*figures_of(week, chosen.rate, chosen.days), sep="\n")  # noqa: T201


if __name__ == "__main__":
    main()
