"""A benchmark: figures that are measured in rounds, the ratios between them, and their targets.

A round measures every contender once, so that a noisy machine is noisy for all of them; ratios are
taken within a round. A round ends by comparing the results with the truth, and raises
``WrongResultError`` if they differ: a fast wrong answer is no figure.
"""

import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

Round = Callable[[float], Awaitable[Mapping[str, float]]]
"""Takes the size of the work (1: as described; less: a part) and returns figure key → value."""

SMALL: Final = 0.001
"""The size at which the test suite runs every benchmark once, for the result.

A contender gets enough work to do something, however small the size is.
"""


class WrongResultError(Exception):
    """A contender did not do its work: its figure is void."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value: its ``key`` in a round, a description, a unit, and a target."""

    key: str
    what: str
    unit: str
    at_least: float | None = None
    at_most: float | None = None

    def value(self, values: Mapping[str, float]) -> float:
        """Return the value in one round."""
        return values[self.key]


@dataclass(frozen=True, slots=True)
class Ratio:
    """One figure of a round divided by another, and a target."""

    over: str
    under: str
    what: str
    at_least: float | None = None
    at_most: float | None = None
    unit: str = "×"

    @property
    def key(self) -> str:
        """Return the name of the ratio."""
        return f"{self.over}/{self.under}"

    def value(self, values: Mapping[str, float]) -> float:
        """Return the value in one round."""
        return values[self.over] / values[self.under]


Line = Figure | Ratio


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Some work, and what is measured of those who do it."""

    name: str
    work: str
    """The work in a sentence or two: sizes, shapes, and what is unfair or wrong about a peer."""
    lines: tuple[Line, ...]
    round: Round


@dataclass(frozen=True, slots=True)
class Measured:
    """The values of one line, one for each round."""

    line: Line
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """Return the middle of the values."""
        return statistics.median(self.values)

    @property
    def target(self) -> str:
        """Return the target as text, or nothing."""
        if self.line.at_least is not None:
            return f"≥ {self.line.at_least:g}"
        return f"≤ {self.line.at_most:g}" if self.line.at_most is not None else ""

    @property
    def is_reached(self) -> bool:
        """Tell whether the median reaches the target; True if there is none."""
        if self.line.at_least is not None:
            return self.median >= self.line.at_least
        return self.line.at_most is None or self.median <= self.line.at_most


def ignore(_: int) -> None:
    """Say nothing of the progress."""


async def measure(
    benchmark: Benchmark, runs: int, size: float = 1, say: Callable[[int], None] = ignore
) -> list[Measured]:
    """Run so many rounds and return each line with its values.

    Raises:
        WrongResultError: a contender did not do its work.
    """
    rounds: list[Mapping[str, float]] = []
    for number in range(runs):
        say(number)
        rounds.append(await benchmark.round(size))
    return [
        Measured(line, tuple(line.value(values) for values in rounds)) for line in benchmark.lines
    ]


def percentile(values: Sequence[float], fraction: float) -> float:
    """Return the value that this fraction of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]


def expect(truth: object, found: object, name: str) -> None:
    """Compare the truth with the result.

    Raises:
        WrongResultError: they differ.
    """
    if truth != found:
        raise WrongResultError(f"{name}: the result is wrong; the figure is void")
