"""Plays thousands of seeds on every core: ``python -m tests.simulation --seeds 10000``.

``--seed`` plays one of them, and prints its story.
"""

import argparse
import gc
import os
import sys
from collections.abc import Iterator
from multiprocessing import get_context
from time import monotonic
from typing import Final

from tests.simulation.arithmetic import Arithmetic
from tests.simulation.faults import chosen
from tests.simulation.history import Outcome, simulate
from tests.simulation.sometimes import Table
from tests.simulation.table import table

CONCURRENCY: Final = 10
STORIES: Final = 3
"""Failing seeds whose story is told."""
LINES: Final = 150


def main() -> int:
    """Play the seeds; the exit code says whether all of them ended as they should."""
    asked = _asked()
    try:
        faults = chosen(asked.faults)
    except ValueError as error:
        sys.exit(str(error))
    if asked.table:
        for line in table(asked.seeds, asked.processes):
            print(line, flush=True)  # noqa: T201
        return 0
    if asked.seed is not None:
        outcome = simulate(asked.seed, faults, tells=True)
        print(*outcome.story, outcome, sep="\n")  # noqa: T201
        return int(not outcome.is_right)
    return int(not play(range(asked.first, asked.first + asked.seeds), faults, asked.processes))


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="play this one only, and tell its story")
    parser.add_argument(
        "--faults",
        default="all",
        help="names, comma-separated; all, visible and pending are groups of names",
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--table", action="store_true", help="each fault alone: what it costs, and what repairs it"
    )
    return parser.parse_args()


def play(seeds: range, faults: frozenset[str], processes: int) -> bool:
    """Play the seeds, print the failures, the sums and what was reached.

    Return whether all of them ended as they should, and reached what so many should.
    """
    sums, sometimes, begun = Arithmetic(), Table(faults), monotonic()
    for outcome in outcomes(seeds, faults, processes):
        sums.add(outcome)
        sometimes.add(outcome.reached)
        if not outcome.is_right:
            print(outcome, flush=True)  # noqa: T201
            if sums.failed <= STORIES:
                story = simulate(outcome.seed, faults, tells=True).story[-LINES:]
                print(*story, sep="\n", flush=True)  # noqa: T201
    print(sums.as_text(monotonic() - begun))  # noqa: T201
    print(*sometimes.lines(), sep="\n")  # noqa: T201
    if missing := sometimes.missing:
        print(f"never reached: {'; '.join(missing)}")  # noqa: T201
    return sums.failed == 0 and not missing


def outcomes(seeds: range, faults: frozenset[str], processes: int) -> Iterator[Outcome]:
    """Yield how each seed ended, in their order."""
    parts = [
        (seeds[start : start + CONCURRENCY], faults) for start in range(0, len(seeds), CONCURRENCY)
    ]
    gc.freeze()  # what is there already is never looked at again
    with get_context("fork").Pool(processes) as pool:
        for some in pool.imap(_some, parts):
            yield from some


def _some(part: tuple[range, frozenset[str]]) -> list[Outcome]:
    seeds, faults = part
    ended = [simulate(seed, faults) for seed in seeds]
    gc.collect()
    return ended


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of a set of texts is part of a history
        again = [sys.executable, "-m", "tests.simulation", *sys.argv[1:]]
        os.execve(sys.executable, again, os.environ | {"PYTHONHASHSEED": "0"})  # noqa: S606
    sys.exit(main())
