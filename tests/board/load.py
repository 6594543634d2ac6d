"""What the board costs: 10,000 messages, 1,000 changes a second, one page and 200 clients.

    python -m tests.board.load

It prints one line for each figure. It needs Chromium.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, Final

from tests.board.chromium import Chromium, Page
from tests.processes import Child
from tests.redis_server import RedisServer
from tests.waiting import wait_until
from tests.worlds import World, open_world

CHANNELS: Final = 100
MESSAGES: Final = 100
"""Messages of each channel."""
RATE: Final = 1_000
CLIENTS: Final = 200
APPLIED: Final = 'tally_events_total{origin="live",outcome="applied"}'
STEP_SECONDS: Final = 0.02
TICKS: Final = os.sysconf("SC_CLK_TCK")
FRAMES: Final = """
new Promise((resolve) => {
  const times = [];
  const begin = performance.now();
  const note = (now) => {
    times.push(now);
    if (now - begin < SECONDS * 1000) requestAnimationFrame(note);
    else resolve(times);
  };
  requestAnimationFrame(note);
})
"""


def say(what: str, figure: str) -> None:
    """Print one figure."""
    sys.stdout.write(f"{what:<52} {figure}\n")
    sys.stdout.flush()


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def channel(number: int) -> str:
    """Return the name of a channel."""
    return f"load.room-{number:03}"


async def react(world: World, rate: float) -> None:
    """Add reactions to all messages in turn, and take them away again."""
    random = Random(1)
    messages = [str(17_960_000_000_000_000 + number) for number in range(MESSAGES)]
    start, done = time.monotonic(), 0
    while True:
        due = int((time.monotonic() - start) * rate)
        for number in range(done, min(due, done + int(rate))):
            place = number % (CHANNELS * MESSAGES)
            value, user = random.choice("👍❤😂🎉😮"), f"user-{number}"
            name, message = channel(place % CHANNELS), messages[place // CHANNELS]
            world.state.add(name, message, "reaction", value, user)
        done = max(done, due)
        await asyncio.sleep(STEP_SECONDS)


async def measure_worker(world: World, worker: Child, what: str, seconds: float) -> None:
    """Print how much of one processor the worker and Redis need, and for how many events."""
    before = await _usage(world, worker)
    await asyncio.sleep(seconds)
    after = await _usage(world, worker)
    own, redis, events = (
        (late - early) / seconds for early, late in zip(before, after, strict=True)
    )
    share = f"{100 * own:.1f} %, Redis {100 * redis:.1f} % of one processor"
    say(f"worker {what}", f"{share}, {events:.0f} events/s, {_memory(worker)} resident")


def _memory(worker: Child) -> str:
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    return f"{int(status.partition('VmRSS:')[2].split()[0]) / 1000:.0f} MB"


async def _usage(world: World, worker: Child) -> tuple[float, float, float]:
    cpu = await world.redis.info("cpu")
    redis = cpu["used_cpu_user"] + cpu["used_cpu_sys"]
    return cpu_seconds(worker.process.pid), redis, await worker.metric(APPLIED)


class Client:
    """A client of the stream that is no browser. It counts bytes."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self.received = 0
        self.events = 0

    async def run(self) -> None:
        """Receive until cancelled."""
        reader, writer = await asyncio.open_connection(*self._address)
        writer.write(b"GET /board/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        try:
            while data := await reader.read(65_536):
                self.received += len(data)
                self.events += data.count(b"event: ")
        finally:
            writer.close()


@asynccontextmanager
async def clients(address: str, number: int) -> AsyncIterator[list[Client]]:
    """Yield clients that receive the stream."""
    host, _, port = address.partition(":")
    connected = [Client(host, int(port)) for _ in range(number)]
    tasks = [asyncio.create_task(client.run()) for client in connected]
    await wait_until(lambda: all(client.events for client in connected))
    try:
        yield connected
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def measure_page(world: World, page: Page, worker: Child, seconds: float) -> None:
    """Print frames and processor time of a page."""
    await page.call("Performance.enable")
    before = await _metrics(page)
    work = measure_worker(world, worker, "with one page", seconds)
    await asyncio.gather(work, measure_frames(page, "the board", seconds))
    after = await _metrics(page)
    for name in ("TaskDuration", "ScriptDuration", "LayoutDuration", "RecalcStyleDuration"):
        say(f"page: {name} of a second", f"{1000 * (after[name] - before[name]) / seconds:.1f} ms")
    say("page: heap of JavaScript", f"{after['JSHeapUsedSize'] / 1e6:.1f} MB")
    say("page: elements", f"{after['Nodes']:.0f}")
    await page.open("about:blank")
    await measure_frames(page, "an empty page", seconds)


async def measure_frames(page: Page, what: str, seconds: float) -> None:
    """Print how regularly the browser draws."""
    times = await page.evaluate(FRAMES.replace("SECONDS", str(seconds)))
    gaps = sorted(late - early for early, late in pairwise(times))
    long = sum(gap > 34 for gap in gaps)
    middle, high, longest = (_at(gaps, part) for part in (0.5, 0.99, 1))
    say(
        f"frames of {what}",
        f"{len(times) / seconds:.1f} a second, {middle} / {high} / {longest} ms "
        f"(p50, p99, longest), {long} of {len(gaps)} above 34 ms",
    )


def _at(gaps: list[float], part: float) -> str:
    return f"{gaps[min(len(gaps) - 1, int(part * len(gaps)))]:.1f}"


async def _metrics(page: Page) -> dict[str, float]:
    found: dict[str, Any] = await page.call("Performance.getMetrics")
    return {item["name"]: item["value"] for item in found["metrics"]}


async def measure(seconds: float) -> None:
    """Print every figure."""
    server, chromium = RedisServer(), Chromium()
    try:
        with tempfile.TemporaryDirectory() as folder:
            async with open_world(server.url, Path(folder)) as world:
                await _measure(world, chromium, seconds)
    finally:
        chromium.end()
        server.stop()


async def _measure(world: World, chromium: Chromium, seconds: float) -> None:
    names = ",".join(map(channel, range(CHANNELS)))
    worker = await world.follow(
        TALLY_BOARD="on",
        TALLY_CHANNELS=names,
        TALLY_CHANNELS_PER_SUBSCRIPTION="5",
        TALLY_SETTLE_SECONDS="600",
        polls=CHANNELS // 5,
    )
    (entry,) = worker.entries("http_listens")
    address = f"{entry['host']}:{entry['port']}"
    reacting = asyncio.create_task(react(world, RATE))
    await asyncio.sleep(3)
    await measure_worker(world, worker, "without a viewer", seconds)
    async with chromium.browser() as browser:
        page = await browser.page(f"http://{address}/board")
        await page.shows("10,000 messages", "#messages-note", 60)
        await measure_page(world, page, worker, seconds)
    for number in (1, CLIENTS):
        async with clients(address, number) as connected:
            start = [client.received for client in connected]
            await measure_worker(world, worker, f"with {number} clients", seconds)
            sizes = [client.received - size for client, size in zip(connected, start, strict=True)]
            say(f"{number} clients: bytes a second each", f"{sum(sizes) / number / seconds:,.0f}")
            say(
                f"{number} clients: slowest received",
                f"{min(sizes) / max(sizes):.2f} of the fastest",
            )
    cut = await worker.metric("tally_http_streams_cut_total")
    say("streams that were cut", f"{cut:.0f}")
    reacting.cancel()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15)
    asyncio.run(measure(parser.parse_args().seconds))


if __name__ == "__main__":
    main()
