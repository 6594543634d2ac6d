"""A worker under a steady load: do memory, file descriptors and lag end as they began?

The journal is kept for a minute and the set of reactions does not grow, so Redis must stay as it
is, too. A round over all channels comes every five minutes, so each compared window has one. All
requests go through a proxy. In the middle Redis restarts, and keeps all.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.comparison import compare
from tests.drill.load import FULL, Load
from tests.drill.rooms import Rooms
from tests.drill.windows import Sample, Window, total
from tests.processes import Child
from tests.redis_server import RedisServer
from tests.source.proxied import behind_a_proxy
from tests.waiting import wait_until
from tests.worlds import World, open_world

MEMORY: Final = "process_resident_memory_bytes"
FILES: Final = "process_open_fds"
CURSOR: Final = "tally_cursor_age_seconds"
QUEUE: Final = "tally_queued_answers"
GAPS: Final = "tally_gaps_total"
UNPROVEN: Final = 'tally_gaps_total{cause="unproven"}'
CPU: Final = "process_cpu_seconds_total"
APPLIED: Final = "tally_lag_seconds_count"
COMPARED_SECONDS: Final = 300
GROWTH: Final = 0.05
"""By how much memory may grow from the first window to the last, as a share."""
SLOWER: Final = 1.5
"""The lag of the last window may be so many times that of the first; less is noise."""
UNFELT_SECONDS: Final = 0.05
"""A lag that nobody notices."""
DELIVERED: Final = 0.99
"""The share of the rate that must be delivered: a load that waits for the worker flatters it."""

ROWS: Final[dict[str, Callable[[Window], str]]] = {
    "worker's memory, mean, MB": lambda of: f"{of.mean(MEMORY) / 1e6:.1f}",
    "worker's memory, most, MB": lambda of: f"{of.most(MEMORY) / 1e6:.1f}",
    "file descriptors, median": lambda of: f"{of.median(FILES):g}",
    "file descriptors, most": lambda of: f"{of.most(FILES):g}",
    "lag, 50 %, ms": lambda of: f"{of.lag(0.5) * 1000:.1f}",
    "lag, 99 %, ms": lambda of: f"{of.lag(0.99) * 1000:.1f}",
    "lag, 99 %, median of 5 parts, ms": lambda of: f"{of.usual_lag(0.99) * 1000:.1f}",
    "oldest cursor, median, s": lambda of: f"{of.median(CURSOR):.2f}",
    "answers queued, mean": lambda of: f"{of.mean(QUEUE):.1f}",
    "events counted, a second": lambda of: f"{of.rate(APPLIED):,.0f}",
    "worker's processor, of a core": lambda of: f"{of.rate(CPU):.0%}",
    "Redis's memory, MB": lambda of: f"{of.redis_megabytes():.1f}",
}
"""The table that compares the first window with the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much of everything."""

    seed: int
    seconds: float = 1800
    rate: float = 2000
    """Events a second."""
    sample_seconds: float = 5
    rooms: Rooms = field(default_factory=lambda: Rooms(200, each=20))


@dataclass(slots=True, kw_only=True)
class Report:
    """What was seen."""

    plan: Plan
    samples: list[Sample] = field(default_factory=list)
    acts: int = 0
    most_behind: float = 0.0
    load_cpu: float = 0.0
    wrong: list[str] = field(default_factory=list)
    """Differences from the truth at the end."""
    exit_code: int | None = None

    def windows(self) -> tuple[Window, Window]:
        """Return the first five minutes and the last; less of both in a short soak."""
        seconds = min(COMPARED_SECONDS, self.plan.seconds / 2)
        samples = round(seconds / self.plan.sample_seconds) + 1
        return Window(self.samples[:samples]), Window(self.samples[-samples:])

    def verdicts(self) -> dict[str, bool]:
        """Return each claim, and whether it holds."""
        first, last = self.windows()
        start = last.samples[0].at
        before = Window([sample for sample in self.samples if sample.at < start])
        delivered = self.acts / (self.plan.rate * self.samples[-1].at)
        return {
            f"memory grew by less than {GROWTH:.0%}": (
                last.mean(MEMORY) < first.mean(MEMORY) * (1 + GROWTH)
            ),
            # A busy minute adds connections to a pool, which keeps them; a leak goes on.
            "file descriptors: no new high at the end": last.median(FILES) <= before.most(FILES),
            "median lag not grown": _is_no_slower(first, last, 0.5),
            "99 % lag not grown": _is_no_slower(first, last, 0.99),
            "cursor not older": last.median(CURSOR) <= first.median(CURSOR) + 1,
            "no event was missed, also when Redis restarted": (
                _missed(self.samples[-1]) == _missed(self.samples[0])
            ),
            f"{DELIVERED:.0%} of the rate were delivered": delivered >= DELIVERED,
            "all tallies are the truth": not self.wrong,
            "exit code 0": self.exit_code == 0,
        }

    @property
    def holds(self) -> bool:
        """Whether every claim holds."""
        return all(self.verdicts().values())

    def __str__(self) -> str:
        return "\n".join((*self._compared(), *self._whole(), *self._judged()))

    def _compared(self) -> Iterator[str]:
        first, last = self.windows()
        yield f"{'':34} {f'first {first.seconds:.0f} s':>14} {f'last {last.seconds:.0f} s':>14}"
        for name, row in ROWS.items():
            yield f"{name:34} {row(first):>14} {row(last):>14}"

    def _whole(self) -> Iterator[str]:
        seconds = Window(self.samples).seconds
        late = self.most_behind / self.plan.rate
        figures = self.samples[-1].figures
        yield f"{self.acts:,} events in {seconds:.0f} s; the load was {late:.1f} s late at worst"
        yield f"processor of the load and the emulator: {self.load_cpu / seconds:.0%} of a core"
        yield f"gaps: {total(figures, GAPS):g}, {figures.get(UNPROVEN, 0.0):g} of them unproven"
        yield f"reconciles of a channel: {total(figures, 'tally_reconciles_total'):g}"

    def _judged(self) -> Iterator[str]:
        for claim, holds in self.verdicts().items():
            yield f"{'yes' if holds else 'NO':3}  {claim}"
        yield from (f"  {line}" for line in self.wrong[:10])

    def latest(self) -> str:
        """Return the last minute in one line."""
        window = Window(self.samples[-round(60 / self.plan.sample_seconds) :])
        return (
            f"{window.samples[-1].at:6.0f} s  {window.mean(MEMORY) / 1e6:6.1f} MB  "
            f"{window.median(FILES):3.0f} files  lag {window.lag(0.5) * 1000:.1f} ms, "
            f"99 %: {window.lag(0.99) * 1000:.1f} ms  {window.rate(APPLIED):,.0f} events/s  "
            f"{window.rate(CPU):.0%} of a core  Redis {window.redis_megabytes():.1f} MB  "
            f"machine's load {os.getloadavg()[0]:.1f}"
        )


def _missed(sample: Sample) -> float:
    """Return how often events may have been missed. A look that proves nothing misses none."""
    return total(sample.figures, GAPS) - sample.figures.get(UNPROVEN, 0.0)


def _is_no_slower(first: Window, last: Window, quantile: float) -> bool:
    limit = max(UNFELT_SECONDS, SLOWER * first.usual_lag(quantile))
    return last.usual_lag(quantile) <= limit


async def run(plan: Plan, folder: Path, say: Callable[[str], None]) -> Report:
    """Keep a worker under load for the time, and sample it; compare everything with the truth."""
    # It writes all to its disk when it is asked to end, as a planned restart does.
    server, report = RedisServer(folder / "redis", save="86400 1"), Report(plan=plan)
    try:
        async with (
            open_world(server.url, folder, seed=plan.seed) as world,
            behind_a_proxy(world.emulator.origin, folder) as (_, proxied),
        ):
            world.settings |= {
                **plan.rooms.settings,
                **proxied,
                "TALLY_HISTORY_RATE": "20",
                "TALLY_JOURNAL_SECONDS": "60",
                "TALLY_RECONCILE_SECONDS": str(COMPARED_SECONDS),
            }
            load = Load(world.state, plan.seed, plan.rooms.names, FULL)
            worker = world.start("run")
            await worker.logs("http_listens")
            await wait_until(worker.is_ready, what=worker.tail)
            await _sample(Soaked(server, world, worker, load), report, say)
            await _compare(world, worker, report)
            return report
    finally:
        server.stop()


@dataclass(frozen=True, slots=True)
class Soaked:
    """What is under load."""

    server: RedisServer
    world: World
    worker: Child
    load: Load

    async def restart_redis(self) -> str:
        """Restart Redis, and return when a later event is counted."""
        began = time.monotonic()
        await self.server.restart()
        away = time.monotonic() - began
        await self.world.redis.connection_pool.disconnect()  # those to the earlier server
        counted = await self.worker.metric(APPLIED)

        async def has_counted_more() -> bool:
            return await self.worker.metric(APPLIED) > counted

        await wait_until(has_counted_more, what=self.worker.tail)
        whole = time.monotonic() - began
        return f"Redis restarted: away for {away:.1f} s, events are counted after {whole:.1f} s"

    async def sample(self, at: float) -> Sample:
        """Return the figures of this moment."""
        memory = await self.world.redis.info("memory")
        return Sample(at, await self.worker.figures(), memory["used_memory"])


async def _sample(soaked: Soaked, report: Report, say: Callable[[str], None]) -> None:
    """Take a sample every few seconds while the load is on; say a line a minute."""
    plan, load, worker = report.plan, soaked.load, soaked.worker
    ticks = round(plan.seconds / plan.sample_seconds)
    async with load.steady(plan.rate):
        await wait_until(lambda: load.acts >= plan.rate)
        await wait_until(lambda: _has_counted(worker), what=worker.tail)
        began, acts, processor = time.monotonic(), load.acts, time.process_time()
        async for _ in _ticks(plan.sample_seconds, plan.seconds):
            report.samples.append(await soaked.sample(time.monotonic() - began))
            if len(report.samples) == ticks // 2 + 1:
                say(await soaked.restart_redis())
            if len(report.samples) % round(60 / plan.sample_seconds) == 0:
                say(report.latest())
        report.acts = load.acts - acts
        report.load_cpu = time.process_time() - processor
        report.most_behind = load.most_behind


async def _has_counted(worker: Child) -> bool:
    return await worker.metric(APPLIED) > 0


async def _ticks(every: float, seconds: float) -> AsyncIterator[None]:
    """Yield every so many seconds, until the time is over."""
    began = time.monotonic()
    for number in range(round(seconds / every) + 1):
        await asyncio.sleep(max(0.0, began + number * every - time.monotonic()))
        yield


async def _compare(world: World, worker: Child, report: Report) -> None:
    """Let the worker read the rest, stop it, and compare everything with the truth."""
    with suppress(AssertionError):  # the report says what is wrong
        await wait_until(world.is_exact)
    report.exit_code = await worker.stopped()
    report.wrong = await compare(world, report.plan.rooms.names)
