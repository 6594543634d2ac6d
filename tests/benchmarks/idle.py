"""A worker that has very many channels: its start, and what it costs while nothing happens."""

import asyncio
import re
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from redis.asyncio import Redis

from reaction_tally.keys import Keys
from tests.benchmarks.answering import FIRST
from tests.benchmarks.harness import Benchmark, Figure, Line, Ratio, expect
from tests.benchmarks.load import found, truth
from tests.benchmarks.loopback import Loopback, published
from tests.benchmarks.probes import stamp
from tests.processes import Child
from tests.redis_server import RedisServer
from tests.waiting import wait_until
from worker.domain.action import Added, Identity, Origin
from worker.domain.position import TICKS_PER_SECOND, Cursor
from worker.store.batch import MAX_BATCH
from worker.store.connection import connect
from worker.store.cursors import digest
from worker.store.script_call import CursorSave
from worker.store.store import Store
from worker.store.tables import Tables

CHANNELS: Final = (1_000, 10_000, 100_000)
WILDCARD: Final = "room.*"
"""The only name that is followed: each channel is known, and under it."""
FILLED_AT_ONCE: Final = MAX_BATCH
EVENTS: Final = 500
"""Events published at the end, at so many a second."""
IDLE_SECONDS: Final = 10.0
LEAST_IDLE_SECONDS: Final = 0.2
QUIET: Final = 0.03
"""A worker is quiet once it uses no more of a core for a second."""
QUIET_WAIT_SECONDS: Final = 300.0
REQUESTS: Final = 20
PERIOD_SECONDS: Final = 900
"""Rounds begin at these, by PubNub's clock, as they run by default."""
UNDISTURBED_SECONDS: Final = 100
"""A worker is measured for about so long."""
TICKS_A_SECOND: Final = 100
"""Of the processor's time in /proc."""
KEYS: Final = Keys()


@dataclass(frozen=True, slots=True)
class Usage:
    """What Linux says of a process."""

    cpu: float
    """Seconds."""
    megabytes: float
    peak_megabytes: float


def usage(process: int) -> Usage:
    """Return it; without /proc it is zero."""
    folder = Path(f"/proc/{process}")
    if not folder.exists():
        return Usage(0, 0, 0)
    fields = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    status = (folder / "status").read_text(encoding="utf-8")
    now, peak = (int(re.findall(rf"{name}:\s*(\d+) kB", status)[0]) for name in ("VmRSS", "VmHWM"))
    return Usage((int(fields[11]) + int(fields[12])) / TICKS_A_SECOND, now / 1000, peak / 1000)


def channel(number: int) -> str:
    """Return a channel's name."""
    return f"room.{number:06d}"


@lru_cache(maxsize=1)
def events_of(channels: int) -> Sequence[Added]:
    """Return one addition for each of some channels."""
    step = max(1, channels // EVENTS)
    at = str(FIRST)
    return [
        Added(Identity(channel(number), str(FIRST - 1), "reaction", "👍", "ben"), at, at)
        for number in range(0, channels, step)
    ]


async def fill(redis: Redis, channels: int) -> None:
    """Leave Redis as a worker does that has read everything: each channel has one reaction."""
    tables, store = Tables(redis, KEYS), Store(redis, KEYS)
    at = str(FIRST - 2)
    for start in range(0, channels, FILLED_AT_ONCE):
        names = [channel(number) for number in range(start, min(channels, start + FILLED_AT_ONCE))]
        added = [
            Added(Identity(name, str(FIRST - 1), "reaction", "👍", "ana"), at, at) for name in names
        ]
        batches = [(event.identity.channel, [event]) for event in added]
        await store.apply_all(batches, Origin.LIVE)
        await tables.channels.add(names)
    now = stamp()
    await tables.rounds.save(str(now))
    await tables.cursors.save(CursorSave(digest([WILDCARD]), Cursor(str(now), 1)))
    await tables.cursors.register(digest([WILDCARD]), [WILDCARD])


def lines_of(events: Sequence[Added]) -> Iterator[bytes]:
    """Yield the events as ``publish`` takes them: their subscription is the wildcard."""
    for line in published(events):
        yield WILDCARD.encode() + line[line.index(b"\t") :]


@asynccontextmanager
async def running(pubnub: Loopback, url: str) -> AsyncIterator[Child]:
    """Start a worker with its defaults; end it."""
    settings = {
        "PUBNUB_SUBSCRIBE_KEY": "demo",
        "PUBNUB_ORIGIN": pubnub.origin,
        "PUBNUB_TLS": "false",
        "REDIS_URL": url,
        "TALLY_CHANNELS": WILDCARD,
        "TALLY_HTTP": "127.0.0.1:0",
        "TALLY_LOG_FORMAT": "json",
        "PYTHONPATH": str(Path.cwd()),
    }
    with tempfile.TemporaryDirectory() as folder:
        child = Child(Path(folder), 1, ["run"], settings)
        try:
            yield child
        finally:
            if child.is_alive:
                await child.killed()


async def is_ready(child: Child) -> bool:
    """Tell whether the worker's page says so."""
    expect(True, child.is_alive, "the worker")
    return bool(child.entries("http_listens")) and await child.is_ready()


async def become_quiet(child: Child) -> None:
    """Wait until the worker uses next to nothing of the processor."""
    deadline = time.monotonic() + QUIET_WAIT_SECONDS
    while time.monotonic() < deadline:
        before = usage(child.process.pid).cpu
        await asyncio.sleep(1)
        if usage(child.process.pid).cpu - before <= QUIET:
            return
    expect(True, False, "the worker is never quiet")


async def avoid_a_round() -> None:
    """Wait if a round would begin while a worker is measured."""
    left = PERIOD_SECONDS - (stamp() / TICKS_PER_SECOND) % PERIOD_SECONDS
    if left < UNDISTURBED_SECONDS:
        await asyncio.sleep(left + 1)


async def measured(channels: int, size: float) -> dict[str, float]:
    """Return what a worker with so many channels takes."""
    server, events = RedisServer(), events_of(channels)
    try:
        with Loopback("publish", lines_of(events)) as pubnub:
            async with connect(server.url) as redis:
                await fill(redis, channels)
            if size == 1:
                await avoid_a_round()
            began = time.perf_counter()
            async with running(pubnub, server.url) as child:
                await wait_until(lambda: is_ready(child), what=child.tail)
                values = {"ready": time.perf_counter() - began}
                values |= await at_rest(child, size, began)
                await pubnub.publish(EVENTS, len(events))
                await all_counted(child, server.url, events)
                expect(0, await child.stopped(), "the worker's end")
                expect([], child.entries("gap"), "what is owed")
    finally:
        server.stop()
    return values


async def at_rest(child: Child, size: float, began: float) -> dict[str, float]:
    """Return the time until a worker is quiet, and what it takes then."""
    if size == 1:
        await become_quiet(child)
    quiet = time.perf_counter() - began
    seconds = max(LEAST_IDLE_SECONDS, IDLE_SECONDS * size)
    before = usage(child.process.pid)
    await asyncio.sleep(seconds)
    after = usage(child.process.pid)
    pages = [await scraped(child) for _ in range(REQUESTS)]
    return {
        "quiet": quiet,
        "begun": before.cpu,
        "idle": 100 * (after.cpu - before.cpu) / seconds,
        "peak": after.peak_megabytes,
        "memory": after.megabytes,
        "metrics": statistics.median(pages),
        "metrics_most": max(pages),
    }


async def scraped(child: Child) -> float:
    """Return the milliseconds of one look at ``/metrics``."""
    began = time.perf_counter()
    status, _ = await child.get("/metrics")
    milliseconds = 1000 * (time.perf_counter() - began)
    expect(200, status, "/metrics")
    return milliseconds


async def all_counted(child: Child, url: str, events: Sequence[Added]) -> None:
    """Wait until every event is counted, beside the reaction that was there."""
    expected = {key: count + 1 for key, count in truth(events).items()}

    async def are_counted() -> bool:
        return await found(url, events) == expected

    await wait_until(are_counted, what=child.tail)


async def one_round(size: float) -> Mapping[str, float]:
    """Start a worker for each number of channels."""
    values: dict[str, float] = {}
    for channels in CHANNELS:
        few = max(10, round(channels * size))
        own = await measured(few, size)
        values |= {f"{key}{channels}": value for key, value in own.items()}
    return values


FIGURES: Final = {
    "ready": ("start until /readyz says yes", "s"),
    "quiet": ("start until it is quiet", "s"),
    "begun": ("processor until then", "s"),
    "idle": ("processor while idle", "% of a core"),
    "memory": ("memory while idle", "MB"),
    "peak": ("memory, peak", "MB"),
    "metrics": ("/metrics, median of 20", "ms"),
    "metrics_most": ("/metrics, slowest of 20", "ms"),
}


def lines() -> Iterator[Line]:
    """Yield what is measured for each number of channels."""
    few, *_, many = CHANNELS
    for key, (words, unit) in FIGURES.items():
        for channels in CHANNELS:
            yield Figure(f"{key}{channels}", f"{words}, {channels:,} channels", unit)
    for key in ("ready", "memory", "metrics"):
        words, _ = FIGURES[key]
        yield Ratio(f"{key}{many}", f"{key}{few}", f"{words}, {many:,} / {few:,} channels")


BENCHMARK: Final = Benchmark(
    "growth-idle",
    "`tally run` with its defaults follows one wildcard. Redis knows 1,000, 10,000 or 100,000 "
    "channels under it, each with one reaction, and the cursor at which a worker before has left "
    "off: nothing is owed. At rest nobody reacts. After its start a worker goes once over all "
    "channels to delete what has expired, and again each hour; quiet is a second with no more than "
    "3 % of a core. No round falls into it. At the end 500 events are published, and all are "
    "counted. Memory and processor are those of the worker's process, by Linux's /proc.",
    tuple(lines()),
    one_round,
)
