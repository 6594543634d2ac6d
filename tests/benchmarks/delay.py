"""How long an event takes from being published to being counted, beside how long to arrive."""

import random
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from tests.benchmarks.answering import FIRST
from tests.benchmarks.children import bare, ours
from tests.benchmarks.harness import Benchmark, Figure, Ratio, expect, percentile
from tests.benchmarks.load import VALUES, found, history, truth
from tests.benchmarks.loopback import Loopback, published
from tests.redis_server import RedisServer
from worker.domain.action import Added, Identity, Observed

SECONDS: Final = 5
CHANNELS: Final = 20
RATE: Final = 500
SUBSCRIPTIONS: Final = 200
EACH: Final = 50
MANY_RATE: Final = 2_000


async def measured(
    events: Sequence[Observed], subscriptions: Sequence[Sequence[str]], rate: float
) -> dict[str, float]:
    """Publish the same events to each contender; return ages in milliseconds, and megabytes."""
    server = RedisServer()
    try:
        with Loopback("publish", published(events)) as pubnub:
            contenders = {
                "ours": await ours(pubnub, server.url, subscriptions, rate, len(events)),
                "bare": await bare(pubnub, subscriptions, rate, len(events)),
                "own": await bare(pubnub, subscriptions, rate, len(events), own=True),
            }
        expect(truth(events), await found(server.url, events), "ours")
    finally:
        server.stop()
    values = {}
    for name, result in contenders.items():
        expect(len(events), len(result.ages), name)
        values[f"{name}50"] = percentile(result.ages, 0.5)
        values[f"{name}99"] = percentile(result.ages, 0.99)
        values[f"{name}_memory"] = result.megabytes
    return values


async def one_subscription(size: float) -> Mapping[str, float]:
    """Let all follow twenty channels in one subscription."""
    count = max(CHANNELS, round(RATE * SECONDS * size))
    events = history(count, channels=CHANNELS, removals=0, twice=0)
    channels = sorted({event.identity.channel for event in events})
    values = await measured(events, [channels], RATE)
    for share in (50, 99):
        for peer in ("bare", "own"):
            values[f"{peer}_later{share}"] = values[f"ours{share}"] - values[f"{peer}{share}"]
    return values


@lru_cache(maxsize=1)
def one_to_each(channels: int) -> list[Observed]:
    """Return one addition to each channel, in random order; they are the same in each round."""
    chance, at = random.Random(1), str(FIRST)
    numbers = chance.sample(range(channels), channels)
    identities = [
        Identity(f"c{number:04d}", str(FIRST - 1), "reaction", chance.choice(VALUES), f"u{number}")
        for number in numbers
    ]
    return [Added(identity, at, at) for identity in identities]


async def many_subscriptions(size: float) -> Mapping[str, float]:
    """Let all follow two hundred subscriptions of fifty channels."""
    events = one_to_each(max(2, round(SUBSCRIPTIONS * size)) * EACH)
    channels = sorted(event.identity.channel for event in events)
    subscriptions = [channels[start : start + EACH] for start in range(0, len(channels), EACH)]
    return await measured(events, subscriptions, MANY_RATE)


LATENCY: Final = Benchmark(
    "latency",
    "500 additions a second for 5 seconds, published by another process to one subscription of 20 "
    "channels. Ours is `tally run` in a process of its own: until a client of Redis hears of the "
    "journal's entry, which is written with the count. The floor is a poll loop through the SDK as "
    "it is shipped, in a process of its own, until it has the event; a second one goes through the "
    "worker's own client, which is quicker and shows what counting adds. All read one clock.",
    (
        Figure("ours50", "published to counted, p50", "ms"),
        Figure("bare50", "published to arrived, p50", "ms"),
        Figure("bare_later50", "counted later than arrived, p50", "ms", at_most=3),
        Figure("own_later50", "counted later than arrived over our client, p50", "ms", at_most=3),
        Figure("ours99", "published to counted, p99", "ms"),
        Figure("bare99", "published to arrived, p99", "ms"),
        Figure("bare_later99", "counted later than arrived, p99", "ms", at_most=15),
        Figure("own_later99", "counted later than arrived over our client, p99", "ms", at_most=15),
    ),
    one_subscription,
)
MANY: Final = Benchmark(
    "many",
    "The same with 200 subscriptions of 50 channels each in one process, 2,000 additions a second "
    "in all for 5 seconds, one to each channel; the poll loops through the SDK have fifty polls to "
    "a client. Memory is a process's peak.",
    (
        Figure("ours50", "published to counted, p50", "ms"),
        Figure("bare50", "published to arrived at bare loops, p50", "ms"),
        Figure("ours99", "published to counted, p99", "ms"),
        Figure("bare99", "published to arrived at bare loops, p99", "ms"),
        Figure("own99", "published to arrived at bare loops over our client, p99", "ms"),
        Ratio("ours99", "bare99", "counted / arrived, p99", at_most=1.5),
        Ratio("ours99", "own99", "counted / arrived over our client, p99"),
        Figure("ours_memory", "memory, ours", "MB", at_most=400),
        Figure("bare_memory", "memory, bare loops", "MB"),
    ),
    many_subscriptions,
)
