"""Partitions of the network under load; exit code 1 if a tally differs from PubNub's truth.

python -m tests.partitions --cluster --seed 1
"""

import argparse
import asyncio
import signal
import sys
import tempfile
from pathlib import Path
from random import SystemRandom

from tests.partitions.driver import Plan, run


def say(line: str) -> None:
    """Print a line at once: a run takes minutes."""
    print(line, flush=True)  # noqa: T201 - a program's output


async def main() -> int:
    """Run as the arguments have it."""
    parser = argparse.ArgumentParser(prog="tests.partitions", description=__doc__)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(1_000_000))
    parser.add_argument("--partitions", type=int, default=20)
    parser.add_argument("--kills", type=int, default=0, help="of workers meanwhile")
    parser.add_argument("--workers", type=int, default=2, help="side by side")
    parser.add_argument("--cluster", action="store_true", help="three primaries, three replicas")
    parser.add_argument("--splits", action="store_true", help="only primaries from their peers")
    parser.add_argument("--rate", type=float, default=60, help="reactions a second")
    chosen = parser.parse_args()
    task = asyncio.current_task()
    assert task
    # A cancelled run ends the processes it has started.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    say(f"seed {chosen.seed}")
    plan = Plan(
        seed=chosen.seed,
        partitions=chosen.partitions,
        is_cluster=chosen.cluster or chosen.splits,
        workers=chosen.workers,
        kills=chosen.kills,
        are_splits=chosen.splits,
        per_second=chosen.rate,
    )
    with tempfile.TemporaryDirectory(prefix="tally-partitions-") as folder:
        report = await run(plan, Path(folder), say)
    say(str(report))
    return 0 if report.is_exact else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
