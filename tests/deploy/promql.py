"""What queries name: metrics, and the labels they ask for."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client import Counter, Gauge, Histogram, Info

from worker.domain.action import Origin
from worker.domain.entry import Outcome
from worker.live.polling import State
from worker.store.pending_repairs import GapCause
from worker.telemetry import metrics
from worker.telemetry.histogram import BatchHistogram

Metric = BatchHistogram | Counter | Gauge | Histogram | Info

_SUFFIXES: Final[dict[str, tuple[str, ...]]] = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_sum", "_count"),
    "info": ("_info",),
}
_SCRAPED: Final = frozenset({"job", "instance", "namespace", "cluster"})
"""Labels a sample has by its scrape; the namespace where the Prometheus operator sees to it.

The cluster is a label of whoever has several.
"""
_OTHERS: Final[dict[str, frozenset[str]]] = {
    "up": _SCRAPED,
    "process_start_time_seconds": _SCRAPED,
    "process_resident_memory_bytes": _SCRAPED,
    "process_open_fds": _SCRAPED,
    "process_max_fds": _SCRAPED,
    "process_cpu_seconds_total": _SCRAPED,
    "kube_job_failed": frozenset({"namespace", "job_name", "condition"}),
}
"""Metrics that are not ours: of prometheus-client, of Prometheus, of kube-state-metrics."""
VALUES: Final[dict[str, Collection[str]]] = {
    "origin": set(Origin),
    "outcome": set(Outcome),
    "cause": set(GapCause),
    "state": set(State),
    "event": {"pruned", "restored"},
    "check": {"redis", "redis_writes", "redis_fit", "subscriptions", "backfill"},
    "operation": {"subscribe", "message_actions", "group_channels", "time"},
}
_RESULTS: Final = {
    "tally_reconciles_total": {"settled", "unproven", "refused", "failed"},
    "tally_reloads_total": {"done", "failed"},
}

_SELECTOR: Final = re.compile(r"\b((?:tally|process|python|kube)_\w+|up)\b(?:\{([^}]*)\})?")
_MATCHER: Final = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_NEW_LABEL: Final = re.compile(r'\bcount_values\b[^"]*"(\w+)"')
_GROUPED: Final = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")


@dataclass(frozen=True, slots=True)
class Selector:
    """A metric in a query, and its matchers."""

    metric: str
    matchers: tuple[tuple[str, str, str], ...]


def ours() -> list[Metric]:
    """Return the worker's metrics."""
    return [metric for metric in vars(metrics).values() if isinstance(metric, Metric)]


def kind(metric: Metric) -> str:
    """Return the type of a metric, in Prometheus's word."""
    return type(metric).__name__.removeprefix("Batch").lower()


def labels(metric: Metric) -> tuple[str, ...]:
    """Return the labels of a metric."""
    if isinstance(metric, BatchHistogram):
        return ()
    return ("version", "redis_namespace") if isinstance(metric, Info) else tuple(metric._labelnames)


def documented_name(metric: Metric) -> str:
    """Return the name of a metric in documents: of a histogram, without a suffix."""
    name: str = metric._name
    return name + ("" if kind(metric) == "histogram" else _SUFFIXES[kind(metric)][0])


def samples() -> dict[str, frozenset[str]]:
    """Return the name of every possible sample → its labels."""
    found = dict(_OTHERS)
    for metric in ours():
        for suffix in _SUFFIXES[kind(metric)]:
            le = {"le"} if suffix == "_bucket" else set()
            found[metric._name + suffix] = _SCRAPED | set(labels(metric)) | le
    return found


def selectors(query: str) -> Iterator[Selector]:
    """Yield the selectors of a query."""
    for name, matchers in _SELECTOR.findall(_GROUPED.sub("", query)):
        yield Selector(name, tuple(_MATCHER.findall(matchers)))


def wrong(query: str) -> list[str]:
    """Return the metrics, labels and values of a query that do not exist."""
    known, found, seen = samples(), [], set(_SCRAPED)
    seen |= set(_NEW_LABEL.findall(query))
    for selector in selectors(query):
        if selector.metric not in known:
            found.append(f"no metric {selector.metric}")
            continue
        seen |= known[selector.metric]
        found += [
            f"{selector.metric} has no label {label}"
            for label, _, _ in selector.matchers
            if label not in known[selector.metric]
        ]
        for label, operator, value in selector.matchers:
            allowed = _RESULTS.get(selector.metric) if label == "result" else VALUES.get(label)
            if allowed is not None and operator in {"=", "!="} and value not in allowed:
                found.append(f"{selector.metric}: {label} is never {value}")
    for grouped in _GROUPED.findall(query):
        found += [
            f"nothing has a label {label}"
            for label in re.findall(r"\w+", grouped)
            if label not in seen
        ]
    return found
