"""Stretches of a soak: what a worker said of itself every few seconds, and what that comes to."""

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from tests.drill.pages import Figures

LAG: Final = "tally_lag_seconds"
_LIMIT: Final = re.compile(rf'{LAG}_bucket{{le="(.*)"}}')


@dataclass(frozen=True, slots=True)
class Sample:
    """One look: when (seconds since the first), what the worker said, and how much memory Redis used then."""

    at: float
    told: Figures
    redis_bytes: float


@dataclass(frozen=True, slots=True)
class Window:
    """Looks in a row."""

    samples: Sequence[Sample]

    @property
    def seconds(self) -> float:
        """How long it lasted."""
        return self.samples[-1].at - self.samples[0].at

    def slices(self, number: int) -> list["Window"]:
        """Return it in so many parts, each of which begins where the one before ends."""
        last = len(self.samples) - 1
        ends = [round(last * part / number) for part in range(number + 1)]
        return [Window(self.samples[start : end + 1]) for start, end in pairwise(ends)]

    def mean(self, name: str) -> float:
        """Return the mean of a figure."""
        return statistics.fmean(each.told[name] for each in self.samples)

    def median(self, name: str) -> float:
        """Return the median of a figure."""
        return statistics.median(each.told[name] for each in self.samples)

    def most(self, name: str) -> float:
        """Return the greatest value of a figure."""
        return max(each.told[name] for each in self.samples)

    def rate(self, name: str) -> float:
        """Return by how much a counter grew a second."""
        return self.growth(name) / self.seconds

    def growth(self, name: str) -> float:
        """Return by how much a counter grew."""
        return self.samples[-1].told.get(name, 0.0) - self.samples[0].told.get(name, 0.0)

    def redis_megabytes(self) -> float:
        """Return the mean of Redis's memory."""
        return statistics.fmean(each.redis_bytes for each in self.samples) / 1e6

    def usual_lag(self, quantile: float) -> float:
        """Return the median of the lags of five slices: one bad minute of a busy machine is not the worker's."""
        return statistics.median(
            each.lag(quantile) for each in self.slices(min(5, len(self.samples) - 1))
        )

    def lag(self, quantile: float) -> float:
        """Return a quantile of this window's lag in seconds, read off the buckets as Prometheus does."""
        buckets = sorted(
            (float(found[1]), series)
            for series in self.samples[0].told
            if (found := _LIMIT.match(series))
        )
        counts = [(limit, self.growth(series)) for limit, series in buckets]
        wanted = quantile * counts[-1][1]
        below, under = 0.0, 0.0
        for limit, count in counts:
            if count >= wanted and count > under:
                return (
                    below
                    if math.isinf(limit)
                    else below + (limit - below) * (wanted - under) / (count - under)
                )
            below, under = limit, count
        return math.nan
