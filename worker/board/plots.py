"""The last fifteen minutes of a worker, for the plots: from the counters of its metrics."""

from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import Any, Final, Self

from prometheus_client import Metric
from prometheus_client.samples import Sample

SECONDS: Final = 5.0
"""The time between two points."""
POINTS: Final = 180
"""Fifteen minutes."""
SERIES: Final = ("received", "applied", "lag_p50", "lag_p99", "requests", "allowed")

Buckets = Mapping[float, float]
"""Upper bound of a bucket in seconds → how many values are not higher."""
Point = dict[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """The counters of a worker at one moment."""

    received: float = 0
    """Live events that were told to Redis."""
    applied: float = 0
    """Those that changed a count."""
    lag: Buckets = field(default_factory=dict)
    requests: float = 0
    """Requests for history."""
    allowed: float = 0
    """How many a second all processes may send."""

    @classmethod
    def of(cls, metrics: Iterable[Metric]) -> Self:
        """Read the counters from the metrics of a worker."""
        samples = list(chain.from_iterable(metric.samples for metric in metrics))
        sums: defaultdict[tuple[str, ...], float] = defaultdict(float)
        for sample in samples:
            name, labels = sample.name, sample.labels
            origin, outcome = labels.get("origin", ""), labels.get("outcome", "")
            sums[name, origin] += sample.value
            sums[name, origin, outcome] += sample.value
        return cls(
            received=sums["tally_events_total", "live"],
            applied=sums["tally_events_total", "live", "applied"],
            lag=_lag_buckets(samples),
            requests=sums["tally_budget_requests_total", ""],
            allowed=sums["tally_budget_rate", ""],
        )

    def point_since(self, before: Self, seconds: float) -> Point:
        """Return what happened since then, a second."""
        lag = {bound: count - before.lag.get(bound, 0) for bound, count in self.lag.items()}
        return {
            "received": _rate(self.received - before.received, seconds),
            "applied": _rate(self.applied - before.applied, seconds),
            "lag_p50": quantile(lag, 0.5),
            "lag_p99": quantile(lag, 0.99),
            "requests": _rate(self.requests - before.requests, seconds),
            "allowed": self.allowed,
        }


def _lag_buckets(samples: Iterable[Sample]) -> Buckets:
    return {
        float(sample.labels["le"]): sample.value
        for sample in samples
        if sample.name == "tally_lag_seconds_bucket"
    }


def _rate(count: float, seconds: float) -> float:
    return round(count / seconds, 2)


def quantile(buckets: Buckets, part: float) -> float | None:
    """Return a quantile in seconds; None without a value.

    In its bucket, values are taken as evenly spread.
    """
    bounds = sorted(buckets)
    if not bounds or buckets[bounds[-1]] <= 0:
        return None
    rank = part * buckets[bounds[-1]]
    for low, high in pairwise([0.0, *bounds]):
        below = buckets.get(low, 0.0)
        if buckets[high] < rank:
            continue
        if high == float("inf"):
            return low
        share = (rank - below) / (buckets[high] - below)
        return round(low + share * (high - low), 5)
    return bounds[-1]


class Plots:
    """The points of the last fifteen minutes."""

    def __init__(self) -> None:
        self._before: tuple[float, Counters] | None = None
        self._times: deque[int] = deque(maxlen=POINTS)
        self._points: deque[Point] = deque(maxlen=POINTS)

    def note(self, now: float, counters: Counters | None) -> None:
        """Note the counters of now; None if no worker answers."""
        if counters is None:
            self._before = None
            return
        before = self._before
        self._before = now, counters
        if before is None or counters.received < before[1].received:
            # The first one, or another process.
            return
        then, earlier = before
        self._times.append(round(now))
        self._points.append(counters.point_since(earlier, max(now - then, 0.001)))

    @property
    def is_available(self) -> bool:
        """Whether a worker answers."""
        return self._before is not None

    @property
    def rate(self) -> float | None:
        """Live events a second, as they were last; None if they are unknown."""
        if not (self.is_available and self._points):
            return None
        return self._points[-1]["received"]

    def all(self) -> dict[str, Any]:
        """Return every point: times in seconds, and a list for each series."""
        return self._columns(list(self._times), list(self._points))

    def newest(self, after: int) -> dict[str, Any]:
        """Return the points that are later than this second."""
        times, points = list(self._times), list(self._points)
        first = bisect_right(times, after)
        return self._columns(times[first:], points[first:])

    def _columns(self, times: Sequence[int], points: Sequence[Point]) -> dict[str, Any]:
        series = {name: [point[name] for point in points] for name in SERIES}
        return {"times": times, **series}
