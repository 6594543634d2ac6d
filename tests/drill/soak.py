"""A worker under a steady load for as long as wanted: do memory, file descriptors and lag end as they began?

The journal is kept for a minute and the reactions are a set that does not grow, so Redis must stay as it is, too. A
round over all channels falls into every five minutes, so that the windows that are compared each have one.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.chaos.comparison import differences, strangers
from tests.drill.load import FULL, Load
from tests.drill.pages import figures, is_ready, total
from tests.drill.staged import Rooms, staged
from tests.drill.windows import Sample, Window
from tests.end_to_end.processes import Child, Stage, wait_until
from tests.redis_server import RedisServer

MEMORY: Final = "process_resident_memory_bytes"
FILES: Final = "process_open_fds"
CURSOR: Final = "tally_cursor_age_seconds"
QUEUE: Final = "tally_queued_answers"
CPU: Final = "process_cpu_seconds_total"
APPLIED: Final = "tally_lag_seconds_count"
COMPARED_SECONDS: Final = 300
GROWTH: Final = 0.05
"""By how much memory may grow from the first window to the last, as a share."""
SLOWER: Final = 1.5
"""How many times the lag of the first window that of the last may be; below, it is the machine's noise."""
UNFELT_SECONDS: Final = 0.05
"""A lag that nobody need look at."""
DELIVERED: Final = 0.99
"""The share of the rate that must have been there: a load that waits for the worker would flatter it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of everything."""

    seed: int
    seconds: float = 1800
    rate: float = 2000
    """Events a second."""
    sample_seconds: float = 5
    rooms: Rooms = field(default_factory=lambda: Rooms(200, each=20))


@dataclass(slots=True)
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
        """Return the first five minutes and the last; less of both where it was short."""
        looks = round(min(COMPARED_SECONDS, self.plan.seconds / 2) / self.plan.sample_seconds) + 1
        return Window(self.samples[:looks]), Window(self.samples[-looks:])

    def verdicts(self) -> dict[str, bool]:
        """Return what was asked, and whether it is so."""
        first, last = self.windows()
        before = Window([each for each in self.samples if each.at < last.samples[0].at])
        return {
            f"memory grew by less than {GROWTH:.0%}": last.mean(MEMORY)
            < first.mean(MEMORY) * (1 + GROWTH),
            # Pools keep as many connections as were ever needed at once: a busy minute adds some, a leak goes on.
            "file descriptors: no new high at the end": last.median(FILES) <= before.most(FILES),
            "median lag not grown": _is_no_slower(first, last, 0.5),
            "99 % lag not grown": _is_no_slower(first, last, 0.99),
            "cursor not older": last.median(CURSOR) <= first.median(CURSOR) + 1,
            f"{DELIVERED:.0%} of the rate were there": self.acts
            >= DELIVERED * self.plan.rate * self.samples[-1].at,
            "all tallies are the truth": not self.wrong,
            "exit code 0": self.exit_code == 0,
        }

    @property
    def behind_seconds(self) -> float:
        """For how long a user waited, at the worst, until there was room for one act more."""
        return self.most_behind / self.plan.rate

    @property
    def holds(self) -> bool:
        """Whether everything that was asked is so."""
        return all(self.verdicts().values())

    def __str__(self) -> str:
        return "\n".join((*self._compared(), *self._whole(), *self._judged()))

    def _compared(self) -> Iterator[str]:
        first, last = self.windows()
        yield f"{'':34} {f'first {first.seconds:.0f} s':>14} {f'last {last.seconds:.0f} s':>14}"
        rows: dict[str, Callable[[Window], str]] = {
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
            "Redis's memory (apart), MB": lambda of: f"{of.redis_megabytes():.1f}",
        }
        for name, row in rows.items():
            yield f"{name:34} {row(first):>14} {row(last):>14}"

    def _whole(self) -> Iterator[str]:
        whole = Window(self.samples)
        gaps = {
            series: value
            for series, value in self.samples[-1].told.items()
            if series.startswith("tally_gaps_total")
        }
        yield f"{self.acts:,} events in {whole.seconds:.0f} s; the load was {self.behind_seconds:.1f} s late at worst"
        yield f"the load's own processor: {self.load_cpu / whole.seconds:.0%} of a core (emulator included)"
        yield f"gaps: {', '.join(f'{name} {value:g}' for name, value in gaps.items() if value) or 'none'}"
        yield f"rounds and repairs: {total(self.samples[-1].told, 'tally_reconciles_total'):g} reconciles of a channel"

    def _judged(self) -> Iterator[str]:
        yield from (f"{'yes' if so else 'NO ':3}  {claim}" for claim, so in self.verdicts().items())
        yield from (f"  {line}" for line in self.wrong[:10])


async def run(plan: Plan, folder: Path, say: Callable[[str], None]) -> Report:
    """Keep a worker under load for the time, looking at it all along; compare everything with the truth."""
    server = RedisServer(appendonly="no", save="")
    try:
        async with staged(server, folder, plan.seed) as stage:
            stage.settings |= {
                **plan.rooms.settings,
                "TALLY_HISTORY_RATE": "20",
                "TALLY_JOURNAL_SECONDS": "60",
                "TALLY_RECONCILE_SECONDS": str(COMPARED_SECONDS),
            }
            load, report = Load(stage.state, plan.seed, plan.rooms.names, FULL), Report(plan)
            worker = stage.start("run")
            await wait_until(
                lambda: worker.entries("http_listens"), 60, what=lambda: worker.err[-3000:]
            )
            await wait_until(lambda: is_ready(worker), 60, what=lambda: worker.err[-3000:])
            await _look_on(plan, stage, worker, load, report, say)
            await _compare(plan, stage, worker, report)
            return report
    finally:
        server.stop()


async def _look_on(
    plan: Plan, stage: Stage, worker: Child, load: Load, report: Report, say: Callable[[str], None]
) -> None:
    """Look every few seconds while the load is on; say a line a minute."""
    async with load.steady(plan.rate):
        await wait_until(lambda: load.acts >= plan.rate, 60)  # it runs
        await wait_until(lambda: _has_counted(worker), 60, what=lambda: worker.err[-3000:])
        began, acts, processor = time.monotonic(), load.acts, time.process_time()
        async for _ in _ticks(plan.sample_seconds, plan.seconds):
            memory = await stage.redis.info("memory")
            told = await figures(worker)
            report.samples.append(Sample(time.monotonic() - began, told, memory["used_memory"]))
            if len(report.samples) % round(60 / plan.sample_seconds) == 0:
                say(_line(report))
        report.acts, report.load_cpu = load.acts - acts, time.process_time() - processor
        report.most_behind = load.most_behind


async def _has_counted(worker: Child) -> bool:
    told = await figures(worker)
    return told[APPLIED] > 0


async def _ticks(every: float, seconds: float) -> AsyncIterator[None]:
    """Yield every so many seconds, until the time is over."""
    began = time.monotonic()
    for number in range(round(seconds / every) + 1):
        await asyncio.sleep(max(0.0, began + number * every - time.monotonic()))
        yield


def _is_no_slower(first: Window, last: Window, quantile: float) -> bool:
    return last.usual_lag(quantile) <= max(UNFELT_SECONDS, SLOWER * first.usual_lag(quantile))


def _line(report: Report) -> str:
    window = Window(report.samples[-round(60 / report.plan.sample_seconds) :])
    return (
        f"{window.samples[-1].at:6.0f} s  {window.mean(MEMORY) / 1e6:6.1f} MB  {window.median(FILES):3.0f} files  "
        f"lag {window.lag(0.5) * 1000:.1f} ms, 99 %: {window.lag(0.99) * 1000:.1f} ms  "
        f"{window.rate(APPLIED):,.0f} events/s  {window.rate(CPU):.0%} of a core  "
        f"Redis {window.redis_megabytes():.1f} MB  machine's load {os.getloadavg()[0]:.1f}"
    )


async def _compare(plan: Plan, stage: Stage, worker: Child, report: Report) -> None:
    """Let the worker take in what is left, stop it, and hold every tally and everybody counted against the truth."""
    with suppress(AssertionError):  # the report tells what is wrong
        await wait_until(stage.is_true, 60)
    worker.ask(signal.SIGTERM)
    report.exit_code = await worker.ended(60)
    report.wrong = differences(await stage.tallies(), stage.emulator.truth())
    report.wrong += await strangers(stage.redis, stage.state, plan.rooms.names)
