"""What many channels, events and reactions need, derived from figures that benchmarks measured.

``python -m tests.bench.beyond`` prints the tables of *Beyond one machine* in
``deploy/reference.md``.
"""

from collections.abc import Iterator
from math import ceil
from typing import Final

from tests.bench.capacity import (
    IDLE_POLLS,
    JOURNAL_BYTES,
    START_MB,
    SUBSCRIPTION_MB,
    rounds,
)
from worker.reconciliation.schedule import FEW_REQUESTS, HOUR
from worker.settings import Settings

CHANNELS: Final = (1_000, 10_000, 100_000)
RATES: Final = (20, 100, 1_000)
"""Requests a second."""

REACTION_BYTES: Final = {2: (231, 295), 10: (102, 112), 200: (116, 131), 25_000: (221, 286)}
"""Reactions of a message → bytes of each, for as long as it is kept, in Valkey 9.1 and Redis 7.0:
counts and actions, index, who reacted. ``make bench BENCH=memory ARGS="--size 0.1"``"""
REACTIONS: Final = 1_000_000_000
NODE_GB: Final = 32
REWRITE: Final = 2
"""While Redis rewrites its append-only file it may take so many times as much."""

WORKER_SECONDS: Final = 426e-6
"""CPU of a worker for an event in a cluster, an answer of one or two events each, some 1,000 a
second: the line *calm* of ``make failovers``, the median of its runs."""
SERVERS_SECONDS: Final = 242e-6
"""CPU of three primaries and their replicas together: the same."""
PLANNED_CHANNELS: Final = 100_000
PLANNED_EVENTS: Final = 50_000
PLANNED_REACTIONS: Final = 1_000_000_000
BUSY: Final = 0.5
"""The part of a core that a plan uses of each process."""
A_PAIR: Final = 2
"""Servers that share the work of a primary: itself and its replica."""
SUBSCRIPTIONS: Final = 400
"""Of a worker: *Sizing* in ``deploy/reference.md``."""
JOURNAL_HOURS: Final = 1


def budget() -> Iterator[str]:
    """Yield what channels need of PubNub's requests."""
    looks = ", ".join(f"{rate:,}" for rate in RATES)
    yield (
        "| channels | subscriptions | idle polls an hour | requests an hour for rounds "
        f"| hours of one look at everything, at {looks} requests a second |"
    )
    yield "|---|---|---|---|---|"
    settings = Settings()
    for channels in CHANNELS:
        subscriptions = ceil(channels / settings.channels_per_subscription)
        load = rounds(channels, settings)
        hours = [FEW_REQUESTS * channels / rate / HOUR for rate in RATES]
        yield (
            f"| {channels:,} | {subscriptions:,} | {IDLE_POLLS * subscriptions:,} "
            f"| {load.requests_an_hour:,.0f} "
            f"| {', '.join(f'{each:.2f}' for each in hours)} |"
        )


def memory() -> Iterator[str]:
    """Yield what reactions need of memory."""
    yield (
        "| reactions of a message | bytes of each: Valkey 9.1, Redis 7.0 "
        f"| a thousand million of them | primaries of {NODE_GB} GB |"
    )
    yield "|---|---|---|---|"
    for of_a_message, sizes in REACTION_BYTES.items():
        wholes = [size * REACTIONS / 1e9 for size in sizes]
        nodes = [ceil(REWRITE * whole / NODE_GB) for whole in wholes]
        yield (
            f"| {of_a_message:,} | {sizes[0]}, {sizes[1]} "
            f"| {wholes[0]:.0f} GB, {wholes[1]:.0f} GB | {nodes[0]}, {nodes[1]} |"
        )


def plan() -> Iterator[str]:
    """Yield what a large installation needs."""
    settings = Settings()
    subscriptions = ceil(PLANNED_CHANNELS / settings.channels_per_subscription)
    by_names = ceil(subscriptions / SUBSCRIPTIONS)
    by_work = ceil(PLANNED_EVENTS * WORKER_SECONDS / BUSY)
    workers = max(by_names, by_work)
    each = ceil(subscriptions / workers)
    by_cpu = ceil(PLANNED_EVENTS * SERVERS_SECONDS / A_PAIR / BUSY)
    reactions = REACTION_BYTES[10][0] * PLANNED_REACTIONS / 1e9
    journal = PLANNED_EVENTS * JOURNAL_HOURS * HOUR * JOURNAL_BYTES / 1e9
    by_memory = ceil(REWRITE * (reactions + journal) / NODE_GB)
    load = rounds(PLANNED_CHANNELS, settings)
    idle = IDLE_POLLS * subscriptions
    busiest = PLANNED_EVENTS * HOUR / 1e6
    yield "| what | how many | from |"
    yield "|---|---|---|"
    yield (
        f"| subscriptions | {subscriptions:,} "
        f"| {PLANNED_CHANNELS:,} / {settings.channels_per_subscription} |"
    )
    yield (
        f"| workers | {workers} | the greater of {by_names} (subscriptions / {SUBSCRIPTIONS}) and "
        f"{by_work} ({PLANNED_EVENTS:,} × {WORKER_SECONDS * 1e6:.0f} µs / {BUSY} of a core each) |"
    )
    yield (
        f"| memory of a worker | {START_MB + SUBSCRIPTION_MB * each:.0f} MB "
        f"| {START_MB} MB + {SUBSCRIPTION_MB} MB × {each} subscriptions |"
    )
    yield (
        f"| primaries, each with a replica | {max(by_cpu, by_memory)} | the greater of {by_cpu} "
        f"({PLANNED_EVENTS:,} × {SERVERS_SECONDS * 1e6:.0f} µs / {A_PAIR} / {BUSY} of a core "
        f"each) and {by_memory} ({REWRITE} × {reactions + journal:.0f} GB / {NODE_GB} GB) |"
    )
    yield (
        f"| memory of the data | {reactions:.0f} + {journal:.0f} GB "
        f"| {PLANNED_REACTIONS:,} × {REACTION_BYTES[10][0]} bytes, and a journal of "
        f"{JOURNAL_HOURS} h: {JOURNAL_BYTES} bytes an event |"
    )
    yield (
        f"| polls an hour | {idle:,} to {busiest:.0f} million "
        "| idle; each event an answer of its own |"
    )
    yield (
        f"| requests an hour for rounds | {load.requests_an_hour:,.0f} of "
        f"{settings.history_rate * HOUR:,.0f} | 2 % of the channels active |"
    )


def tables() -> list[str]:
    """Return the three tables."""
    return ["\n".join(rows()) for rows in (budget, memory, plan)]


if __name__ == "__main__":
    print("\n\n".join(tables()))  # noqa: T201
