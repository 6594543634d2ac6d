"""Drills of the whole service.

make drill · make stops TIMES=50 · make soak MINUTES=30 RATE=2000 · make failovers SEED=1
python -m tests.drill --seed 1 shards
"""

import argparse
import asyncio
import signal
import sys
import tempfile
from collections.abc import Awaitable
from pathlib import Path
from random import SystemRandom

from tests.deploy import prometheus_server
from tests.drill import day, several_servers, shards, soak, stops
from tests.drill.rooms import Rooms

Result = soak.Report | stops.Stops | shards.Shards | several_servers.Failovers


def say(line: str) -> None:
    """Print a line at once: some of these take long."""
    print(line, flush=True)  # noqa: T201 - a program's output


async def holds(drill: Awaitable[Result]) -> bool:
    """Run a drill, and tell what was seen; return whether all was as promised."""
    report = await drill
    say(str(report))
    return report.holds


async def lived(chosen: argparse.Namespace, folder: Path) -> bool:
    """Live through a day, and tell."""
    is_there = prometheus_server.BINARY is not None
    if not (is_there or chosen.without_prometheus):
        say(f"SKIPPED: no alert is tried, for there is {prometheus_server.MISSING}")
    has_prometheus = is_there and not chosen.without_prometheus
    plan = day.Plan(seed=chosen.seed, has_prometheus=has_prometheus)
    await day.run(plan, folder, say)
    return plan.has_prometheus or bool(chosen.without_prometheus)


async def soaked(chosen: argparse.Namespace, folder: Path) -> bool:
    """Soak a worker, and tell."""
    plan = soak.Plan(seed=chosen.seed, seconds=chosen.minutes * 60, rate=chosen.rate)
    rooms = f"{plan.rooms.channels} channels for {chosen.minutes:g} minutes"
    say(f"a worker under {plan.rate:,g} events/s over {rooms}")
    return await holds(soak.run(plan, folder, say))


async def stopped(chosen: argparse.Namespace, folder: Path) -> bool:
    """Stop workers under full load, and tell."""
    plan = stops.Plan(seed=chosen.seed, times=chosen.times)
    say(f"SIGTERM {plan.times} times; {plan.rooms}")
    return await holds(stops.run(plan, folder, say))


async def resharded(chosen: argparse.Namespace, folder: Path) -> bool:
    """Change the number of shards under load, and tell."""
    plan = shards.Plan(seed=chosen.seed, kills=chosen.kills, per_second=chosen.rate)
    say(f"shards: {' → '.join(map(str, shards.PATH))}; {plan.rooms}")
    return await holds(shards.run(plan, folder, say))


async def failed_over(chosen: argparse.Namespace, folder: Path) -> bool:
    """Let all happen to several servers, and tell."""
    settings = {"TALLY_WAIT_REPLICAS": str(chosen.wait_replicas)} if chosen.wait_replicas else {}
    plan = several_servers.Plan(
        seed=chosen.seed,
        kind=chosen.kind,
        rate=chosen.rate,
        rooms=Rooms(chosen.channels, each=10),
        settings=settings,
    )
    say(f"{plan.kind}: a worker under {plan.rate:,g} events/s over {plan.rooms}")
    say(several_servers.HEAD)
    return await holds(several_servers.run(plan, folder, say))


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="tests.drill", description=__doc__)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(1_000_000))
    parser.add_argument("--without-prometheus", action="store_true", help="try no alert")
    parser.set_defaults(run=lived)
    commands = parser.add_subparsers()
    soaking = commands.add_parser("soak")
    soaking.add_argument("--minutes", type=float, default=30)
    soaking.add_argument("--rate", type=float, default=2000)
    soaking.set_defaults(run=soaked)
    stopping = commands.add_parser("stops")
    stopping.add_argument("--times", type=int, default=50)
    stopping.set_defaults(run=stopped)
    resharding = commands.add_parser("shards")
    resharding.add_argument("--kills", type=int, default=3)
    resharding.add_argument("--rate", type=float, default=200)
    resharding.set_defaults(run=resharded)
    for kind in several_servers.KINDS:
        failing = commands.add_parser(kind)
        failing.add_argument("--rate", type=float, default=2000)
        failing.add_argument("--channels", type=int, default=300)
        failing.add_argument("--wait-replicas", type=int, default=0)
        failing.set_defaults(run=failed_over, kind=kind)
    return parser.parse_args()


async def main() -> int:
    """Run as the arguments have it."""
    chosen = arguments()
    task = asyncio.current_task()
    assert task
    # A cancelled run ends the processes it has started.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    say(f"seed {chosen.seed}")
    with tempfile.TemporaryDirectory(prefix="tally-drill-") as folder:
        try:
            return 0 if await chosen.run(chosen, Path(folder)) else 1
        except AssertionError as error:
            say("\n".join(("FAILED", *getattr(error, "__notes__", ()), str(error))))
            return 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
