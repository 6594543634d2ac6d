"""SIGTERM at random moments under full load, again and again: is an event lost, and how long does it take to go?

Full load: an answer's worth of events waits whenever the worker asks, so that it always has something in hand, and more
behind. PubNub's cache holds only a little more than that: whatever a worker has read and leaves behind unapplied, or
applied without its cursor, shows as an overflow (a gap) at the next one, or as a wrong tally. Nothing may hide that, so
no list of PubNub's is asked for while it goes on: what is counted was told live.
"""

import asyncio
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Final

from tests.chaos.comparison import broken_tallies, differences, strangers
from tests.drill.load import FULL, Load
from tests.drill.staged import Rooms, leave_off, staged
from tests.end_to_end.processes import Child, Stage, wait_until
from tests.redis_server import RedisServer
from worker.domain.position import Cursor
from worker.emulator.stream import REGION

LISTS: Final = ("actions", "groups")
"""Requests that bring what no event has told."""
NEVER: Final = str(10**9)
"""Seconds between two rounds over all channels: none is to fall into a drill."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of everything."""

    seed: int
    times: int = 50
    rooms: Rooms = field(default_factory=lambda: Rooms(20, each=5))
    faults: Mapping[str, float] = field(default_factory=dict)
    """Of the emulator; one that loses events must make it fail."""
    longest_life: float = 1.5
    """Seconds after its first poll by which a worker is stopped."""


@dataclass(slots=True)
class Report:
    """What was seen."""

    exits: list[float] = field(default_factory=list)
    """Seconds from the signal until the process was gone."""
    drains: list[float] = field(default_factory=list)
    """Seconds from when it heard the signal until all that was read was applied; the rest is Python's own end."""
    codes: Counter[int] = field(default_factory=Counter)
    rates: list[float] = field(default_factory=list)
    """Events a second of each worker, from its first poll to the signal."""
    acts: int = 0
    gaps: Counter[str] = field(default_factory=Counter)
    """Marks of something owed, by cause; none is: nobody was away for more than PubNub's cache holds."""
    listed: int = 0
    """Requests for what no event has told."""
    wrong: list[str] = field(default_factory=list)
    """Differences from the truth at the end, of counts and of who is counted."""

    @property
    def holds(self) -> bool:
        """Whether every stop was clean, and no event was lost."""
        return set(self.codes) == {0} and not (self.gaps or self.listed or self.wrong)

    def __str__(self) -> str:
        lines = {
            "load": f"{self.acts:,} events; {_spread(self.rates, ',.0f')} a second while a worker polled",
            "drained after": f"{_spread([1000 * each for each in self.drains], '.0f')} ms",
            "exit after": f"{_spread([1000 * each for each in self.exits], '.0f')} ms",
            "exit codes": ", ".join(
                f"{code}: {count} times" for code, count in sorted(self.codes.items())
            ),
            "gaps": _sum(self.gaps),
            "lists asked for": str(self.listed),
            "differences": str(len(self.wrong)),
        }
        wrong = [f"  {line}" for line in self.wrong[:10]]
        return "\n".join([f"{name:16}{line}" for name, line in lines.items()] + wrong)


async def run(plan: Plan, folder: Path, say: Callable[[str], None]) -> Report:
    """Stop a worker, start the next one at once, and so on; let the last one read what is left, and compare."""
    server, report = RedisServer(appendonly="no", save=""), Report()
    try:
        async with staged(server, folder, plan.seed) as stage:
            stage.settings |= {
                **plan.rooms.settings,
                "TALLY_RECONCILE_SECONDS": NEVER,
                "TALLY_HTTP": "off",
            }
            load = Load(stage.state, plan.seed, plan.rooms.names, FULL)
            begin = Cursor(str(stage.state.time.now()), REGION)
            await leave_off(stage.redis, plan.rooms.names, plan.rooms.each, begin)
            stage.state.faults.replace(plan.faults)
            async with load.full():
                await _stop_again_and_again(plan, stage, load, report, say)
                last = await _told(stage, load)
            report.codes[await _stopped_with_all(plan, stage, last)] += 1
            report.acts = load.acts
            report.listed = sum(stage.emulator.requests[operation] for operation in LISTS)
            report.gaps = Counter(
                entry["cause"] for child in stage.children for entry in child.entries("gap")
            )
            report.wrong = differences(await stage.tallies(), stage.emulator.truth())
            report.wrong += await strangers(stage.redis, stage.state, plan.rooms.names)
            report.wrong += await broken_tallies(stage.redis)
            return report
    finally:
        server.stop()


async def _stop_again_and_again(
    plan: Plan, stage: Stage, load: Load, report: Report, say: Callable[[str], None]
) -> None:
    random = Random(f"{plan.seed}:stops")
    for number in range(1, plan.times + 1):
        before = load.acts
        child = await _told(stage, load)
        polled = time.perf_counter()
        await asyncio.sleep(random.uniform(0, plan.longest_life))
        assert child.is_alive, child.err[-3000:]
        asked, acts = time.perf_counter(), load.acts - before
        child.ask(signal.SIGTERM)
        code = await asyncio.to_thread(child.process.wait, 60)
        report.exits.append(time.perf_counter() - asked)
        report.drains += _drained(child)
        report.codes[code] += 1
        report.rates.append(acts / (asked - polled))
        if number % 10 == 0:
            say(f"{number} of {plan.times} stops, {load.acts:,} events")


def _drained(child: Child) -> list[float]:
    """Return how long a worker took from the signal to having applied all; nothing of one that did not come so far."""
    moments = [
        datetime.fromisoformat(entry["timestamp"])
        for event in ("stop_asked", "worker_stops")
        for entry in child.entries(event)
    ]
    return [(last - first).total_seconds() for first, last in pairwise(moments)]


async def _told(stage: Stage, load: Load) -> Child:
    """Start a worker, and return when it is being told what users do."""
    before = load.acts
    child = stage.start("run")
    await wait_until(lambda: load.acts > before, 60, what=lambda: child.err[-3000:])
    return child


async def _stopped_with_all(plan: Plan, stage: Stage, child: Child) -> int:
    """Let a worker read what waits, nothing more happening meanwhile, and stop it; return its exit code."""
    await wait_until(
        lambda: stage.emulator.waiting == plan.rooms.subscriptions,
        60,
        what=lambda: child.err[-3000:],
    )
    child.ask(signal.SIGTERM)
    return await child.ended(60)


def _spread(values: list[float], form: str) -> str:
    """Return the least, the median and the most."""
    if not values:
        return "none"
    return f"{min(values):{form}}–{max(values):{form}}, median {statistics.median(values):{form}}"


def _sum(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counter.items()) or "none"
