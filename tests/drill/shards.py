"""Two shards become three, and two again, under load and with kills: is anything missed?

The workers are restarted one by one, as a StatefulSet does it, so shards of both numbers run at
once. Any of them may be killed. No list of PubNub's may hide a lost event: a request for one is
a failure, and so is any mark, of channels that move and of channels that stay.
In the end each shard gets a second worker, and the run says what that costs.
"""

import asyncio
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Final

from tests.drill.load import Load
from tests.drill.report import Report
from tests.drill.rooms import NEVER, Rooms, leave_off, probe
from tests.drill.windows import total
from tests.processes import Child
from tests.redis_server import RedisServer
from tests.waiting import wait_until
from tests.worlds import World, open_world
from worker.domain.position import Cursor
from worker.domain.shards import Shard
from worker.emulator.stream import REGION
from worker.errors import ExitCode

PATH: Final = (2, 3, 2)
COSTS: Final = {
    "polls": "polls",
    "calls": "calls of Redis",
    "cpu": "CPU of the workers",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much of everything."""

    seed: int
    rooms: Rooms = field(default_factory=lambda: Rooms(100, each=5))
    per_second: float = 200
    kills: int = 3
    """Workers that are killed on each way from one number of shards to another."""
    longest_life: float = 2
    """Seconds between two steps, at most."""
    measured_seconds: float = 10
    """For so long each shard has one worker, then two; 0: nothing is measured."""


@dataclass(slots=True, kw_only=True)
class Shards(Report):
    """What was seen."""

    starts: int = 0
    kills: int = 0
    moved: list[int] = field(default_factory=list)
    """Channels that changed their shard, on each way."""
    polls: list[int] = field(default_factory=list)
    """Subscriptions of all shards together, at each number of shards."""
    ratios: dict[str, float] = field(default_factory=dict)
    """What two workers a shard cost, as multiples of one; of each act."""

    @property
    def holds(self) -> bool:
        """Whether no event was lost, and nobody was backfilled."""
        return not (self.gaps or self.listed or self.wrong)

    def __str__(self) -> str:
        rows = {
            "load": f"{self.acts:,} events",
            "workers": f"{self.starts} started, {self.kills} of them killed",
            "channels moved": " and ".join(map(str, self.moved)),
            "subscriptions": ", ".join(map(str, self.polls)),
            "marks": dict(self.gaps),
            "lists asked for": self.listed,
            **{f"2 sets, {COSTS[name]}": f"{ratio:.2f}" for name, ratio in self.ratios.items()},
        }
        return self.table(rows)


async def run(plan: Plan, folder: Path, say: Callable[[str], None]) -> Shards:
    """Let the number of shards change under load; then compare."""
    server = RedisServer()
    try:
        async with open_world(server.url, folder, seed=plan.seed) as world:
            world.settings |= plan.rooms.settings
            world.settings |= {"TALLY_RECONCILE_SECONDS": NEVER, "TALLY_SETTLE_SECONDS": "5"}
            return await Drill(plan, world, say).run()
    finally:
        server.stop()


class Drill:
    """One run."""

    def __init__(self, plan: Plan, world: World, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._world = world
        self._say = say
        self._random = Random(f"{plan.seed}:shards")
        self._load = Load(world.state, plan.seed, plan.rooms.names)
        self._workers: dict[Shard, Child] = {}
        self.report = Shards()

    async def run(self) -> Shards:
        """Change the number of shards, measure, compare."""
        begin = Cursor(str(self._world.state.time.now()), REGION)
        rooms = self._plan.rooms
        await leave_off(self._world.redis, rooms.names, rooms.each, begin)
        for shard in shards_of(PATH[0]):
            self._start(shard)
        async with self._load.steady(self._plan.per_second):
            await self._count_polls()
            for before, after in pairwise(PATH):
                await self._change(before, after)
            if self._plan.measured_seconds:
                await self._measure()
        await probe(self._world, self._plan.rooms.names)
        for child in self._workers.values():
            assert await child.stopped() == ExitCode.DONE, child.tail()
        self.report.acts = self._load.acts
        await self.report.compare(self._world, self._plan.rooms.names)
        return self.report

    async def _change(self, before: int, after: int) -> None:
        """Replace the workers one by one, in any order, and kill some meanwhile."""
        steps = [*range(max(before, after)), *["kill"] * self._plan.kills]
        self._random.shuffle(steps)
        for step in steps:
            if isinstance(step, int):
                await self._replace(step, before, after)
            else:
                await self._kill_one()
            await asyncio.sleep(self._random.uniform(0, self._plan.longest_life))
        names = self._plan.rooms.names
        moved = [name for name in names if place(name, before) != place(name, after)]
        self.report.moved.append(len(moved))
        await self._count_polls()
        self._say(f"{before} → {after} shards, {self._load.acts:,} events")

    async def _replace(self, index: int, before: int, after: int) -> None:
        """End the worker of this number, and start its successor, as far as they exist."""
        child = self._workers.pop(Shard(index, before), None)
        if child and self._random.random() < 0.5:
            await child.killed()
            self.report.kills += 1
        elif child:
            # One that has just begun to start may not handle signals yet.
            code = await child.stopped()
            assert code in {ExitCode.DONE, -signal.SIGTERM}, f"{code} {child.tail()}"
        if index < after:
            self._start(Shard(index, after))

    async def _kill_one(self) -> None:
        """Kill a worker, whatever it does, and start it again."""
        shard = self._random.choice(sorted(self._workers, key=str))
        child = self._workers.pop(shard)
        assert child.is_alive, child.tail()
        await child.killed()
        self.report.kills += 1
        self._start(shard)

    def _start(self, shard: Shard) -> None:
        self.report.starts += 1
        self._workers[shard] = self._world.start("run", TALLY_SHARD=str(shard))

    async def _count_polls(self) -> None:
        await probe(self._world, self._plan.rooms.names)
        polls = [await self._subscriptions(child) for child in self._workers.values()]
        self.report.polls.append(sum(polls))

    async def _subscriptions(self, child: Child) -> int:
        await wait_until(lambda: bool(child.entries("http_listens")), what=child.tail)
        await wait_until(child.is_ready, what=child.tail)
        return round(total(await child.figures(), "tally_subscriptions"))

    async def _measure(self) -> None:
        """Compare one worker a shard with two, for the same time under the same load."""
        alone = await self._costs(list(self._workers.values()))
        seconds = [self._world.start("run", TALLY_SHARD=str(shard)) for shard in self._workers]
        self.report.starts += len(seconds)
        for child in seconds:
            await self._subscriptions(child)
        both = await self._costs([*self._workers.values(), *seconds])
        self.report.ratios = {name: both[name] / alone[name] for name in COSTS}
        for child in seconds:
            assert await child.stopped() == ExitCode.DONE, child.tail()

    async def _costs(self, children: Sequence[Child]) -> dict[str, float]:
        """Return what each act costs."""
        before, acts = await self._counters(children), self._load.acts
        await asyncio.sleep(self._plan.measured_seconds)
        after = await self._counters(children)
        return {name: (after[name] - before[name]) / (self._load.acts - acts) for name in COSTS}

    async def _counters(self, children: Sequence[Child]) -> dict[str, float]:
        statistics = await self._world.redis.info("commandstats")
        figures = [await child.figures() for child in children]
        return {
            "polls": self._world.emulator.requests["subscribe"],
            "calls": sum(command["calls"] for command in statistics.values()),
            "cpu": sum(figure["process_cpu_seconds_total"] for figure in figures),
        }


def shards_of(count: int) -> list[Shard]:
    """Return all shards of so many."""
    return [Shard(index, count) for index in range(count)]


def place(name: str, count: int) -> int:
    """Return the number of a name's shard, of so many."""
    (shard,) = (shard for shard in shards_of(count) if shard.has(name))
    return shard.index
