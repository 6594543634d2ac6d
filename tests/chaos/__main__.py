"""Chaos with real processes, ending with arithmetic; exit code 1 where it does not add up.

make chaos KILLS=200 RESTARTS=20 SEED=1
"""

import argparse
import asyncio
import signal
import sys
import tempfile
from pathlib import Path
from random import SystemRandom

from tests.chaos.driver import Plan, run
from worker.telemetry.logs import configure


async def main() -> int:
    """Run as the arguments have it."""
    arguments = argparse.ArgumentParser(prog="tests.chaos", description=__doc__)
    arguments.add_argument("--kills", type=int, default=200)
    arguments.add_argument("--restarts", type=int, default=20)
    arguments.add_argument("--seed", type=int, default=SystemRandom().randrange(1_000_000))
    chosen = arguments.parse_args()
    configure("json", "error")
    task = asyncio.current_task()
    assert task
    # A cancelled run ends the processes it has started.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    print(f"seed       {chosen.seed}", flush=True)  # noqa: T201 - a program's output
    with tempfile.TemporaryDirectory(prefix="tally-chaos-") as folder:
        plan = Plan(seed=chosen.seed, kills=chosen.kills, restarts=chosen.restarts)
        report = await run(plan, Path(folder))
    print(report)  # noqa: T201 - as above
    return 0 if report.is_exact else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
