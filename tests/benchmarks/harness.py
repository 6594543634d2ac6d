"""What a benchmark is: figures, measured in rounds; ratios between them, with the target each is to reach.

One round measures every contender once, one after the other, so that a noisy machine is noisy for all of them; ratios
are taken within a round. A round ends by comparing what came out with the truth, and raises ``WrongResultError`` where
they differ: a fast wrong answer is no figure.
"""

import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

Round = Callable[[float], Awaitable[Mapping[str, float]]]
"""Takes the size of the work (1: as described; less: a part of it) and returns a value for each figure's key."""

SMALL: Final = 0.001
"""The size at which the test suite runs every benchmark once: does it run, and is the result right?

Where so small a part would leave a contender without its work, the benchmark does no less than it takes.
"""


class WrongResultError(Exception):
    """What was measured did not do its work: its figure is void."""


@dataclass(frozen=True, slots=True)
class Figure:
    """Something measured: ``key`` in a round's values, what it is, and its unit."""

    key: str
    what: str
    unit: str
    at_least: float | None = None
    at_most: float | None = None

    def value(self, values: Mapping[str, float]) -> float:
        """Return it, of one round."""
        return values[self.key]


@dataclass(frozen=True, slots=True)
class Ratio:
    """One figure of a round divided by another, and where it should be."""

    over: str
    under: str
    what: str
    at_least: float | None = None
    at_most: float | None = None
    unit: str = "×"

    @property
    def key(self) -> str:
        """Return what it is known by."""
        return f"{self.over}/{self.under}"

    def value(self, values: Mapping[str, float]) -> float:
        """Return it, of one round."""
        return values[self.over] / values[self.under]


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure of a round less another, and how much it may be."""

    over: str
    under: str
    what: str
    unit: str
    at_most: float
    at_least: None = None

    @property
    def key(self) -> str:
        """Return what it is known by."""
        return f"{self.over}-{self.under}"

    def value(self, values: Mapping[str, float]) -> float:
        """Return it, of one round."""
        return values[self.over] - values[self.under]


Line = Figure | Ratio | Difference


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Some work, those who do it, and what is said of it."""

    name: str
    work: str
    """What is done, in a sentence or two: sizes, shapes, and what is unfair or wrong about a peer."""
    lines: tuple[Line, ...]
    round: Round


@dataclass(frozen=True, slots=True)
class Measured:
    """One line's values, a value for each round."""

    line: Line
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """Return the middle of the values."""
        return statistics.median(self.values)

    @property
    def target(self) -> str:
        """Return where it should be, or nothing."""
        if self.line.at_least is not None:
            return f"≥ {self.line.at_least:g}"
        return f"≤ {self.line.at_most:g}" if self.line.at_most is not None else ""

    @property
    def is_reached(self) -> bool:
        """Tell whether the median is where it should be; True where nothing is asked."""
        at_least, at_most = self.line.at_least, self.line.at_most
        return (at_least is None or self.median >= at_least) and (
            at_most is None or self.median <= at_most
        )


async def measure(
    benchmark: Benchmark, runs: int, size: float = 1, told: Callable[[int], None] | None = None
) -> list[Measured]:
    """Run so many rounds and return each line with its values.

    Raises:
        WrongResultError: a contender did not do its work.
    """
    rounds: list[Mapping[str, float]] = []
    for number in range(runs):
        if told:
            told(number)
        rounds.append(await benchmark.round(size))
    return [
        Measured(line, tuple(line.value(values) for values in rounds)) for line in benchmark.lines
    ]


def percentile(values: Sequence[float], fraction: float) -> float:
    """Return the value that this fraction of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]


def expect(truth: object, found: object, who: str) -> None:
    """Compare what came out with what must.

    Raises:
        WrongResultError: they differ.
    """
    if truth != found:
        raise WrongResultError(f"{who}: the result is wrong; the figure is void")
