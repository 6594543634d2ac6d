"""Chaos with real processes, ending with arithmetic; exit code 1 where it does not add up.

make chaos KILLS=200 RESTARTS=20 SEED=1
make side-by-side OLD=v0.2.0
"""

import argparse
import asyncio
import signal
import sys
import tempfile
from pathlib import Path
from random import SystemRandom
from typing import Final

from tests.chaos.driver import YOUNG, Plan, run
from tests.keyspaces.copies import golden_copies
from tests.releases import TODAY, Environment, NoHistoryError, checked_out
from worker.telemetry.logs import configure

LAST_RELEASE: Final = "the last release"
PLANNED: Final = 0.3
"""The share of planned stops, where releases change."""
FEW: Final = 0.1
"""The share of early kills there: workers that do not listen are not side by side."""


def arguments() -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(prog="tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--restarts", type=int, default=20)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(1_000_000))
    parser.add_argument("--runs", type=int, default=1, help="so many seeds, one after the other")
    parser.add_argument(
        "--old",
        nargs="?",
        const=LAST_RELEASE,
        help="a commit or tag whose worker runs beside today's; alone: the last release",
    )
    return parser.parse_args()


async def main() -> int:
    """Run as the arguments have it."""
    chosen = arguments()
    configure("json", "error")
    task = asyncio.current_task()
    assert task
    # A cancelled run ends the processes it has started.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with tempfile.TemporaryDirectory(prefix="tally-old-") as folder:
        try:
            old = code_of(chosen.old, Path(folder))
        except NoHistoryError as error:
            print(f"skipped: {error}")  # noqa: T201 - a program's output
            return 0
        seeds = range(chosen.seed, chosen.seed + chosen.runs)
        results = [await one(seed, chosen, old) for seed in seeds]
    print(f"{sum(results)} of {len(results)} runs are exact")  # noqa: T201 - as above
    return 0 if all(results) else 1


def code_of(reference: str | None, folder: Path) -> Environment | None:
    """Return the code of the other release; None if there is none.

    Raises:
        NoHistoryError: this checkout does not have it.
    """
    if reference == LAST_RELEASE:
        reference = golden_copies()[-1].made.commit
    return checked_out(reference, folder) if reference else None


async def one(seed: int, chosen: argparse.Namespace, old: Environment | None) -> bool:
    """Make one run; tell whether it was exact."""
    print(f"seed       {seed}", flush=True)  # noqa: T201 - as above
    # Either of them comes first.
    releases = [old, TODAY] if seed % 2 else [TODAY, old]
    plan = Plan(
        seed=seed,
        kills=chosen.kills,
        restarts=chosen.restarts,
        releases=[release for release in releases if release is not None],
        young=YOUNG if old is None else FEW,
        stops=0 if old is None else PLANNED,
    )
    with tempfile.TemporaryDirectory(prefix="tally-chaos-") as folder:
        report = await run(plan, Path(folder))
    print(report, flush=True)  # noqa: T201 - as above
    return report.is_exact


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
