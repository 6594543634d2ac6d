"""A fixed choice of seeds; ``make simulate`` plays as many more as wanted."""

import os
import subprocess
import sys

import pytest

from tests.simulation.faults import ALL
from tests.simulation.history import Outcome, simulate

UNHURRIED = pytest.mark.timeout(900)
"""Some seconds of work, or minutes on a busy machine."""


@UNHURRIED
def test_seeds_end_exact() -> None:
    """Every invariant holds on the way, and the end is PubNub's own set of actions."""
    expect_right("all", 40)


@UNHURRIED
def test_visible_faults_are_repaired_by_the_worker() -> None:
    """After its repairs nothing differs, before any round or command."""
    expect_right("visible", 20)


def expect_right(faults: str, seeds: int) -> None:
    """Expect the first seeds to end as they should.

    They run in a process of their own, with a fixed order of sets of texts.
    """
    words = (
        "-m",
        "tests.simulation",
        "--faults",
        faults,
        "--seeds",
        str(seeds),
        "--processes",
        "1",
    )
    played = subprocess.run(
        [sys.executable, *words],
        env=os.environ | {"PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert played.returncode == 0, played.stdout[-6000:] + played.stderr[-3000:]
    assert played.stdout.startswith(f"{seeds} seeds in ")
    assert "; 0 seeds failed" in played.stdout


@pytest.mark.parametrize("seed", range(2))
def test_a_seed_replays_exactly(seed: int) -> None:
    """The same seed is the same history, to the last line."""
    first, second = (_told(simulate(seed, ALL, tells=True)) for _ in range(2))

    assert first == second


def _told(outcome: Outcome) -> tuple[object, ...]:
    return outcome.story, outcome.steps, outcome.before, outcome.after, outcome.broken
