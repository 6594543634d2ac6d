"""SIGTERM at random moments under full load, again and again: is an event lost, how long is a stop?

At full load an answer's worth of events is ready for each poll, so a worker always has something
in hand, and more behind. PubNub's cache holds only a little more. Events that a worker has read and
leaves unapplied, or applied without a cursor, show as an overflow (a gap) at the next worker, or as
a wrong tally. No list of PubNub's may hide that: only events are counted here.
"""

import asyncio
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from random import Random

from tests.drill.load import FULL, Load
from tests.drill.report import Report
from tests.drill.rooms import NEVER, Rooms, leave_off
from tests.processes import Child
from tests.redis_server import RedisServer
from tests.waiting import wait_until
from tests.worlds import World, open_world
from worker.domain.position import Cursor
from worker.emulator.stream import REGION


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much of everything."""

    seed: int
    times: int = 50
    rooms: Rooms = field(default_factory=lambda: Rooms(20, each=5))
    faults: Mapping[str, float] = field(default_factory=dict)
    """Faults of the emulator; one that loses events must make the drill fail."""
    longest_life: float = 1.5
    """Seconds from the first poll of a worker until the signal, at most."""


@dataclass(slots=True, kw_only=True)
class Stops(Report):
    """What was seen."""

    exits: list[float] = field(default_factory=list)
    """Seconds from the signal to the end of the process."""
    drains: list[float] = field(default_factory=list)
    """Seconds from the signal, as the worker logs it, until everything was applied."""
    codes: Counter[int] = field(default_factory=Counter)
    rates: list[float] = field(default_factory=list)
    """Events a second of each worker, from its first poll to the signal."""

    @property
    def holds(self) -> bool:
        """Whether every stop was clean, and no event was lost."""
        return set(self.codes) == {0} and not (self.gaps or self.listed or self.wrong)

    def __str__(self) -> str:
        rows = {
            "load": f"{self.acts:,} events; {_spread(self.rates, 1, ',.0f')} a second while polled",
            "drained after": f"{_spread(self.drains, 1000, '.0f')} ms",
            "exit after": f"{_spread(self.exits, 1000, '.0f')} ms",
            "exit codes": dict(self.codes),
            "gaps": dict(self.gaps),
            "lists asked for": self.listed,
        }
        return self.table(rows)


async def run(plan: Plan, folder: Path, say: Callable[[str], None]) -> Stops:
    """Stop a worker, start the next one at once, and so on; then compare."""
    server, report = RedisServer(), Stops()
    try:
        async with open_world(server.url, folder, seed=plan.seed, faults=plan.faults) as world:
            world.settings |= plan.rooms.settings
            world.settings |= {"TALLY_RECONCILE_SECONDS": NEVER, "TALLY_HTTP": "off"}
            load = Load(world.state, plan.seed, plan.rooms.names, FULL)
            begin = Cursor(str(world.state.time.now()), REGION)
            await leave_off(world.redis, plan.rooms.names, plan.rooms.each, begin)
            async with load.full():
                await _stop_repeatedly(plan, world, load, report, say)
                last = await _started(world, load)
            report.codes[await _stopped_with_all(plan, world, last)] += 1
            report.acts = load.acts
            await report.compare(world, plan.rooms.names)
            return report
    finally:
        server.stop()


async def _stop_repeatedly(
    plan: Plan, world: World, load: Load, report: Stops, say: Callable[[str], None]
) -> None:
    random = Random(f"{plan.seed}:stops")
    for number in range(1, plan.times + 1):
        before = load.acts
        child = await _started(world, load)
        polled = time.perf_counter()
        await asyncio.sleep(random.uniform(0, plan.longest_life))
        assert child.is_alive, child.tail()
        asked, acts = time.perf_counter(), load.acts - before
        child.ask(signal.SIGTERM)
        report.codes[await asyncio.to_thread(child.process.wait, 60)] += 1
        report.exits.append(time.perf_counter() - asked)
        report.drains += _drained(child)
        report.rates.append(acts / (asked - polled))
        if number % 10 == 0:
            say(f"{number} of {plan.times} stops, {load.acts:,} events")


def _drained(child: Child) -> list[float]:
    """Return the seconds from the signal until everything was applied; none without both logs."""
    entries = [*child.entries("stop_asked"), *child.entries("worker_stops")]
    moments = [datetime.fromisoformat(entry["timestamp"]) for entry in entries]
    return [(moments[1] - moments[0]).total_seconds()] if len(moments) == 2 else []


async def _started(world: World, load: Load) -> Child:
    """Start a worker, and return when it has events to read."""
    before = load.acts
    child = world.start("run")
    await wait_until(lambda: load.acts > before, what=child.tail)
    return child


async def _stopped_with_all(plan: Plan, world: World, child: Child) -> int:
    """Let a worker read everything, and stop it; return its exit code."""
    polls = plan.rooms.subscriptions
    await wait_until(lambda: world.emulator.waiting == polls, what=child.tail)
    return await child.stopped()


def _spread(values: list[float], factor: float, form: str) -> str:
    """Return the least, the most and the median."""
    if not values:
        return "none"
    least, most, median = min(values), max(values), statistics.median(values)
    return f"{factor * least:{form}}–{factor * most:{form}}, median {factor * median:{form}}"
