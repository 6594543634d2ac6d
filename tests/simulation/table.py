"""Each fault alone, and all together: what live events alone get wrong, and what repairs leave."""

import gc
from collections.abc import Iterator
from multiprocessing import get_context
from typing import Final

from tests.simulation.faults import ALL, WORLDLY
from tests.simulation.history import Outcome, simulate
from worker.emulator import FAULT_NAMES

HEAD: Final = "fault           wrong  live only  pruned  restored  before  after  forced"
CAPTION: Final = (
    "seeds with that fault alone. With live events only: how many are wrong at the end, and by "
    "how many differences. With all repairs: actions pruned or restored wrongly for a while, "
    "differences before the final reconcile and after it, seeds where it had to be forced"
)


def table(seeds: int, processes: int) -> Iterator[str]:
    """Yield the lines, each from a few hundred seeds."""
    rows = [(name, frozenset({name})) for name in (*FAULT_NAMES, *WORLDLY)] + [
        ("all", ALL),
        ("none", frozenset[str]()),
    ]
    yield CAPTION
    yield HEAD
    with get_context("fork").Pool(processes) as pool:
        yield from pool.imap(_row, [(name, faults, seeds) for name, faults in rows])


def _row(asked: tuple[str, frozenset[str], int]) -> str:
    name, faults, seeds = asked
    bare = list(_outcomes(faults, seeds, live_only=True))
    whole = list(_outcomes(faults, seeds, live_only=False))
    wrong, differences = (
        sum(bool(each.before) for each in bare),
        sum(len(each.before) for each in bare),
    )
    pruned, restored = (
        sum(each.wrongly[kind] for each in whole) for kind in ("pruned", "restored")
    )
    before, after = sum(len(each.before) for each in whole), sum(len(each.after) for each in whole)
    forced = sum(bool(each.forced) for each in whole)
    broken = "".join(f"  {each}" for each in whole if not each.is_right)
    return (
        f"{name:14} {wrong:6} {differences:10} {pruned:7} {restored:9}"
        f" {before:7} {after:6} {forced:7}{broken}"
    )


def _outcomes(faults: frozenset[str], seeds: int, *, live_only: bool) -> Iterator[Outcome]:
    for seed in range(seeds):
        yield simulate(seed, faults, live_only=live_only)
        if seed % 10 == 9:
            gc.collect()
