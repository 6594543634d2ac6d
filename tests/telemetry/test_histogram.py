"""A histogram that takes many values at once shows what the library's own would show."""

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY, CollectorRegistry, Histogram, Metric

from worker.telemetry.histogram import BatchHistogram
from worker.telemetry.metrics import event_count

BOUNDS = (0.005, 0.1, 1, 2.5, 10)
NAME, TEXT = "tally_test_seconds", "A test."

event_count("live", "applied")  # as in a worker, no metric shows when it was created


def shown(metrics: Iterable[Metric]) -> list[object]:
    """Return all that Prometheus gets."""
    return [
        (metric.name, metric.documentation, metric.type, sample.name, sample.labels, sample.value)
        for metric in metrics
        for sample in metric.samples
    ]


@given(st.lists(st.lists(st.sampled_from([0.0, *BOUNDS]) | st.floats(0, 20))))
def test_it_shows_what_the_library_shows(parts: list[list[float]]) -> None:
    """A value on a bound belongs to the bucket below."""
    theirs = Histogram(NAME, TEXT, buckets=BOUNDS, registry=CollectorRegistry())
    ours = BatchHistogram(NAME, TEXT, BOUNDS)
    try:
        for values in parts:
            ours.observe_all(values)
            for value in values:
                theirs.observe(value)

        assert shown(ours.collect()) == shown(theirs.collect())
    finally:
        REGISTRY.unregister(ours)
