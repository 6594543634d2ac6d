"""A run fails if no history reached an interesting state."""

from collections import Counter

from tests.simulation.faults import ALL
from tests.simulation.sometimes import COMMON_SEEDS, ENOUGH_SEEDS, STATES, Table

COMMON = [state.name for state in STATES if state.is_common]


def table(seeds: int, *states: str) -> Table:
    """Return the table of so many histories that reached these states."""
    table = Table(ALL)
    for _ in range(seeds):
        table.add(Counter(states))
    return table


def test_a_state_that_nobody_reached_is_named() -> None:
    """Some dozens of seeds owe the common states, thousands owe all."""
    first, *others = COMMON

    assert table(COMMON_SEEDS, *others).missing == [first]
    assert set(table(ENOUGH_SEEDS, *COMMON).missing) == {
        state.name for state in table(0).states if not state.is_common
    }


def test_few_seeds_owe_no_state() -> None:
    """A run of some seeds is for their end."""
    assert table(COMMON_SEEDS - 1).missing == []


def test_some_faults_owe_no_state() -> None:
    """Without a fault some states are out of reach."""
    few = Table(frozenset({"kill"}))
    few.seeds = ENOUGH_SEEDS

    assert few.missing == []


def test_each_state_is_noted_once() -> None:
    """A name stands for one state."""
    names = [state.name for state in STATES]

    assert len(names) == len(set(names))
