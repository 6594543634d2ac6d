"""Windows of a soak: a worker's metrics over some minutes, and what they come to."""

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

LAG: Final = "tally_lag_seconds"
_LIMIT: Final = re.compile(rf'{LAG}_bucket{{le="(.*)"}}')

Figures = Mapping[str, float]
"""Series → value, as ``/metrics`` writes them."""


def total(figures: Figures, name: str) -> float:
    """Return the sum of all series of a name."""
    return sum(value for series, value in figures.items() if series.partition("{")[0] == name)


@dataclass(frozen=True, slots=True)
class Sample:
    """The figures at one moment (seconds since the first), and the memory of Redis then."""

    at: float
    figures: Figures
    redis_bytes: float


@dataclass(frozen=True, slots=True)
class Window:
    """Samples in a row."""

    samples: Sequence[Sample]

    @property
    def seconds(self) -> float:
        """The length of the window."""
        return self.samples[-1].at - self.samples[0].at

    def slices(self, number: int) -> list["Window"]:
        """Return the window in so many parts; each begins where the one before ends."""
        last = len(self.samples) - 1
        ends = [round(last * part / number) for part in range(number + 1)]
        return [Window(self.samples[start : end + 1]) for start, end in pairwise(ends)]

    def values(self, name: str) -> list[float]:
        """Return the value of a series in each sample."""
        return [sample.figures[name] for sample in self.samples]

    def mean(self, name: str) -> float:
        """Return the mean of a series."""
        return statistics.fmean(self.values(name))

    def median(self, name: str) -> float:
        """Return the median of a series."""
        return statistics.median(self.values(name))

    def most(self, name: str) -> float:
        """Return the greatest value of a series."""
        return max(self.values(name))

    def growth(self, name: str) -> float:
        """Return by how much a counter grew."""
        first, last = self.samples[0].figures, self.samples[-1].figures
        return last.get(name, 0.0) - first.get(name, 0.0)

    def rate(self, name: str) -> float:
        """Return by how much a counter grew a second."""
        return self.growth(name) / self.seconds

    def redis_megabytes(self) -> float:
        """Return the mean of Redis's memory."""
        return statistics.fmean(sample.redis_bytes for sample in self.samples) / 1e6

    def usual_lag(self, quantile: float) -> float:
        """Return the median of the lags of five slices, so that one bad minute does not count."""
        slices = self.slices(min(5, len(self.samples) - 1))
        return statistics.median(part.lag(quantile) for part in slices)

    def lag(self, quantile: float) -> float:
        """Return a quantile of the lag in seconds, read off the buckets as Prometheus does."""
        counts = self._buckets()
        wanted = quantile * counts[-1][1]
        below, under = 0.0, 0.0
        for limit, count in counts:
            if count >= wanted and count > under:
                share = (wanted - under) / (count - under)
                return below if math.isinf(limit) else below + (limit - below) * share
            below, under = limit, count
        return math.nan

    def _buckets(self) -> list[tuple[float, float]]:
        """Return the upper limit and the count of each bucket, in order."""
        matches = [_LIMIT.match(series) for series in self.samples[0].figures]
        limits = [(float(match[1]), match[0]) for match in matches if match]
        return [(limit, self.growth(series)) for limit, series in sorted(limits)]
