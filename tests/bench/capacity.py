"""How much a worker takes, derived from figures that benchmarks measured.

``python -m tests.bench.capacity`` prints the table of ``deploy/reference.md``.
"""

from collections import Counter
from math import ceil
from typing import Final

from worker.reconciliation.schedule import DAY, HOUR, Activity, Load, Schedule
from worker.settings import Settings

ROWS: Final = ((1_000, 10), (10_000, 10), (10_000, 100), (20_000, 500))
"""Channels, and events a second over all of them."""
ACTIVE: Final = 0.02
"""The part of the channels that changed within the hour."""
QUIET: Final = 0.18
"""The part that changed within the week, but not within the hour."""

WORKER_SECONDS: Final = 402e-6
"""CPU of the worker for an event that is an answer of its own: ``make bench BENCH=sparse``."""
REDIS_SECONDS: Final = 105e-6
"""CPU of Redis for it: the same benchmark."""
START_MB: Final = 75
"""Memory of a worker with few subscriptions: *Sizing* in ``deploy/reference.md``."""
SUBSCRIPTION_MB: Final = 0.15
"""Memory of a subscription: the same."""
JOURNAL_BYTES: Final = 145
"""The most that an event takes in the journal: the same."""
IDLE_POLLS: Final = 13
"""Requests of an idle subscription in an hour: *Cost* in ``deploy/reference.md``."""

HEAD: Final = (
    "| channels | events/s | worker: CPU, memory | Redis: CPU, journal of a day "
    "| requests an hour: following, rounds | rounds take |\n"
    "|---|---|---|---|---|---|"
)


def row(channels: int, events: int, settings: Settings) -> str:
    """Return the line of an installation."""
    subscriptions = ceil(channels / settings.channels_per_subscription)
    memory = START_MB + SUBSCRIPTION_MB * subscriptions
    journal = events * DAY * JOURNAL_BYTES / 1e9
    load = rounds(channels, settings)
    idle = IDLE_POLLS * subscriptions
    busy = idle + events * round(HOUR)
    return (
        f"| {channels:,} | {events} "
        f"| {events * WORKER_SECONDS:.1%} of a core, {memory:.0f} MB "
        f"| {events * REDIS_SECONDS:.1%} of a core, {journal:.2f} GB "
        f"| {idle:,} to {busy:,}, {load.requests_an_hour:,.0f} "
        f"| {load.minutes_an_hour:.1f} minutes of each hour |"
    )


def rounds(channels: int, settings: Settings) -> Load:
    """Return what rounds over these channels have to do, as ``tally doctor`` estimates it."""
    schedule = Schedule(
        settings.reconcile_seconds,
        settings.reconcile_window,
        settings.reconcile_full_seconds,
        settings.history_rate,
    )
    active, quiet = round(ACTIVE * channels), round(QUIET * channels)
    silent = channels - active - quiet
    activities = {Activity.ACTIVE: active, Activity.QUIET: quiet, Activity.SILENT: silent}
    return Load(schedule, Counter(activities))


def table() -> str:
    """Return the whole table."""
    settings = Settings()
    return "\n".join([HEAD, *(row(channels, events, settings) for channels, events in ROWS)])


if __name__ == "__main__":
    print(table())  # noqa: T201
