"""Every metric. ``deploy/reference.md`` says what each is good for.

No label holds a text that others chose.
"""

from functools import cache
from pathlib import Path
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
    write_to_textfile,
)

from worker.errors import ConfigurationError
from worker.telemetry.histogram import BatchHistogram

disable_created_metrics()  # type: ignore[no-untyped-call] # the library has no type for it

build: Final = Info("tally_build", "Which version runs, and for which namespace in Redis.")

events: Final = Counter(
    "tally_events",
    "Events told to Redis, by origin and outcome.",
    ["origin", "outcome"],
)
event_count: Final = cache(events.labels)
"""Returns the counter of an origin and an outcome."""
lag: Final = BatchHistogram(
    "tally_lag_seconds",
    "From PubNub's publishing a live event to its being counted; by two clocks.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
quarantined: Final = Counter(
    "tally_quarantined",
    "Events that could not be understood or applied.",
)

gaps: Final = Counter(
    "tally_gaps", "Stretches of events that may have been missed, by cause.", ["cause"]
)
repaid: Final = Counter(
    "tally_gaps_repaid", "Marks of such gaps that a reconcile took back, by cause.", ["cause"]
)
owed: Final = Gauge(
    "tally_channels_owed", "Channels that still need a repair, by cause.", ["cause"]
)
owed_age: Final = Gauge(
    "tally_owed_age_seconds",
    "Age of the oldest mark that is still owed; 0 if nothing is.",
)
inferred: Final = Counter(
    "tally_inferred", "Events a reconcile inferred from PubNub's list, by kind.", ["event"]
)
counts_rebuilt: Final = Counter(
    "tally_counts_rebuilt",
    "Messages whose counts or place in the index were written again, as their actions say.",
)
reconciles: Final = Counter(
    "tally_reconciles", "Reconciles of a channel, by how they ended.", ["result"]
)
round_began: Final = Gauge(
    "tally_round_timestamp_seconds", "When the newest round over all channels began."
)
unproven: Final = Gauge(
    "tally_unproven_seconds",
    "How long ago channels were last compared with PubNub's list, and nothing was in doubt:"
    " the recent past or everything; the longest, or of 99 in a hundred.",
    ["look", "quantile"],
)
never_proven: Final = Gauge(
    "tally_channels_never_proven", "Channels that were never compared as a whole."
)
backfills: Final = Gauge("tally_backfills", "Backfills that are wanted or under way.")
differences: Final = Counter(
    "tally_differences", "Tallies that verify found to differ from PubNub's list."
)
verified: Final = Gauge(
    "tally_verified_timestamp_seconds",
    "When verify ended that compared everything; 0 if none did.",
)

channels: Final = Gauge("tally_channels", "Channels ever seen.")
names: Final = Gauge("tally_names", "Names that are followed: channels and groups.")
shards: Final = Gauge(
    "tally_shards",
    "Shards that there are, by the one that this worker has (TALLY_SHARD); without one, 1.",
    ["shard"],
)
names_digest: Final = Gauge(
    "tally_names_digest",
    "A number for the names that are followed; workers with the same names have the same.",
)
memory_limit: Final = Gauge(
    "tally_memory_limit_bytes",
    "Memory that the worker may take: of its cgroup, or of the machine; 0: unknown.",
)
subscriptions: Final = Gauge("tally_subscriptions", "Subscriptions, by state.", ["state"])
cursor_age: Final = Gauge("tally_cursor_age_seconds", "How long ago the oldest cursor was saved.")
queued: Final = Gauge("tally_queued_answers", "PubNub's answers that wait to be applied.")
ready: Final = Gauge("tally_ready", "Whether a check of /readyz passes: 1 or 0.", ["check"])
reloads: Final = Counter(
    "tally_reloads", "Times the channel list was read again, by result.", ["result"]
)

pubnub_requests: Final = Counter(
    "tally_pubnub_requests",
    "Requests to PubNub, by operation and HTTP status (none: no answer).",
    ["operation", "status"],
)
request_count: Final = cache(pubnub_requests.labels)
"""Returns the counter of an operation and a status."""
token_expires: Final = Gauge(
    "tally_token_expires_timestamp_seconds",
    "When the access token ends; 0 if there is none, or if it cannot be read.",
)
budget_rate: Final = Gauge(
    "tally_budget_rate",
    "Requests for history a second that all processes together may send.",
)
budget_requests: Final = Counter(
    "tally_budget_requests", "Requests for history this process was granted."
)
budget_waited: Final = Counter("tally_budget_waited_seconds", "Time spent waiting for the budget.")

script: Final = Histogram(
    "tally_script_seconds",
    "Time of a call of scripts that Redis has run, the way there and back included, by script.",
    ["script"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
http_requests: Final = Counter(
    "tally_http_requests",
    "Requests to the HTTP API and the board, by route and HTTP status.",
    ["route", "status"],
)
http_streams: Final = Gauge("tally_http_streams", "Open streams of server-sent events.")
http_streams_cut: Final = Counter(
    "tally_http_streams_cut", "Streams that were cut because their client did not read."
)
redis_memory: Final = Gauge("tally_redis_memory_bytes", "Memory that Redis has taken; 0: unknown.")
redis_memory_limit: Final = Gauge(
    "tally_redis_memory_limit_bytes",
    "Memory that Redis may take: maxmemory, or what its machine has; 0: unknown.",
)
redis_failures: Final = Counter(
    "tally_redis_failures", "Calls of Redis that failed and were tried again."
)


def write_verified(path: Path, *, is_everything: bool) -> None:
    """Write the results of verify to a file, in one step.

    node_exporter's textfile collector reads it.

    Raises:
        ConfigurationError: the file cannot be written.
    """
    if is_everything:
        verified.set_to_current_time()
    registry = CollectorRegistry()  # without the metrics of this process
    registry.register(differences)
    registry.register(verified)
    try:
        write_to_textfile(str(path), registry)
    except OSError as error:
        raise ConfigurationError(
            f"--metrics-file {path}: it cannot be written ({error.strerror})."
        ) from None
