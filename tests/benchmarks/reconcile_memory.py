"""The memory of a reconcile: a channel with few actions, and with many, in separate processes.

    python -m tests.benchmarks.reconcile_memory --actions 1000000

Prints the peak of resident memory of both, and an estimate for ten million actions.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from typing import Final

from redis.asyncio import Redis

from reaction_tally.keys import Keys
from tests.redis_server import RedisServer
from worker.domain.action import Added, Identity, Origin
from worker.emulator import Emulator
from worker.store.batch import MAX_BATCH
from worker.store.connection import connect
from worker.store.store import Store

FIRST: Final = 17_000_000_000_000_000
USERS_A_MESSAGE: Final = 100
FEW: Final = 100_000
GONE_EVERY: Final = 1000
"""One action in so many was removed, and nobody heard of it."""

CHILD: Final = """
import re, sys
from pathlib import Path
from worker.cli.main import main
sys.argv = ["tally", *sys.argv[1:]]
try:
    main()
finally:
    # Not getrusage: there a child that was forked begins with its parent's peak.
    status = Path("/proc/self/status").read_text()
    print(re.search(r"VmHWM:\\s*([0-9]+) kB", status)[1], file=sys.stderr)
"""


def identity(number: int) -> Identity:
    """Return whose action a number is."""
    return Identity(
        "room", str(FIRST + number // USERS_A_MESSAGE), "reaction", "👍", f"user-{number:09d}"
    )


async def fill(emulator: Emulator, redis: Redis, count: int) -> None:
    """Let Redis know of every action, and PubNub of all but those that are gone."""
    store = Store(redis, Keys())
    for start in range(0, count, MAX_BATCH):
        events = []
        for number in range(start, min(count, start + MAX_BATCH)):
            of, at = identity(number), FIRST + 2 * number
            events.append(Added(of, str(at), str(at)))
            if number % GONE_EVERY:
                emulator.state.add(
                    "room", of.message_timetoken, of.type, of.value, of.uuid, published=False, at=at
                )
        await store.apply_all([("room", events)], Origin.BACKFILL)


async def measure(count: int) -> tuple[int, float]:
    """Return the peak of memory in bytes, and the seconds, of a reconcile of so many actions."""
    server = RedisServer()
    try:
        async with Emulator() as emulator, connect(server.url) as redis:
            await fill(emulator, redis, count)
            settings = {
                "PUBNUB_SUBSCRIBE_KEY": "demo",
                "PUBNUB_ORIGIN": emulator.origin,
                "PUBNUB_TLS": "false",
                "REDIS_URL": server.url,
                "TALLY_SETTLE_SECONDS": "1",
                "TALLY_HISTORY_RATE": "1000",
                "TALLY_PRUNE_FLOOR": str(count),
            }
            began = time.perf_counter()
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", CHILD, "reconcile", "room", "--json"),
                env={**os.environ, **settings, "PYTHONPATH": os.getcwd()},  # noqa: PTH109 - for a child
                cwd=tempfile.gettempdir(),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            said, errors = await child.communicate()
            seconds = time.perf_counter() - began
            report = json.loads(said)
            expected = len(range(0, count, GONE_EVERY))
            if (report["pruned"], report["unproven"], report["added"]) != (expected, 0, 0):
                raise SystemExit(f"not what was to be done: {report}")
            return int(errors.split()[-1]) * 1024, seconds
    finally:
        server.stop()


async def main(actions: int) -> None:
    """Measure both, and say so."""
    few, _ = await measure(FEW)
    many, seconds = await measure(actions)
    each = (many - few) / (actions - FEW)
    estimate = few + each * (10_000_000 - FEW)
    lines = [
        f"{FEW:>10,} actions: {few / 1e6:6.1f} MB",
        f"{actions:>10,} actions: {many / 1e6:6.1f} MB, {seconds:.0f} s",
        f"{each:.1f} bytes an action; 10,000,000 would take {estimate / 1e6:.0f} MB",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure the memory a reconcile takes.")
    parser.add_argument("--actions", type=int, default=1_000_000)
    asyncio.run(main(parser.parse_args().actions))
