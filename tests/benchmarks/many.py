"""Two hundred subscriptions in one worker: how long an event takes there, and how much memory."""

import random
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from tests.benchmarks.answering import FIRST
from tests.benchmarks.children import bare, ours
from tests.benchmarks.harness import Benchmark, Figure, Ratio, expect, percentile
from tests.benchmarks.load import VALUES, found, truth
from tests.benchmarks.loopback import Loopback, published
from tests.redis_server import RedisServer
from worker.domain.action import Added, Identity, Observed

SUBSCRIPTIONS: Final = 200
EACH: Final = 50
RATE: Final = 2_000
SECONDS: Final = 5


@lru_cache(maxsize=1)
def events_of(channels: int) -> list[Observed]:
    """Return one addition to each channel, in no order; they are the same in each round."""
    chance, at = random.Random(1), str(FIRST)
    numbers = random.Random(2).sample(range(channels), channels)
    return [
        Added(
            Identity(
                f"c{number:04d}",
                str(FIRST - 1),
                "reaction",
                chance.choice(VALUES),
                f"user-{number}",
            ),
            at,
            at,
        )
        for number in numbers
    ]


async def one_round(size: float) -> Mapping[str, float]:
    """Let both hear the same events, one after the other."""
    events = events_of(max(2, round(SUBSCRIPTIONS * size)) * EACH)
    channels = sorted(event.identity.channel for event in events)
    subscriptions = [channels[start : start + EACH] for start in range(0, len(channels), EACH)]
    server = RedisServer()
    try:
        with Loopback("publish", published(events)) as pubnub:
            counted = await ours(pubnub, server.url, subscriptions, RATE, len(events))
            arrived = await bare(pubnub, subscriptions, RATE, len(events))
            own = await bare(pubnub, subscriptions, RATE, len(events), own=True)
        expect(truth(events), await found(server.url, events), "ours")
        expect([len(events)] * 3, [len(each.ages) for each in (counted, arrived, own)], "events")
    finally:
        server.stop()
    return {
        "ours50": percentile(counted.ages, 0.5),
        "bare50": percentile(arrived.ages, 0.5),
        "own99": percentile(own.ages, 0.99),
        "ours99": percentile(counted.ages, 0.99),
        "bare99": percentile(arrived.ages, 0.99),
        "memory": counted.megabytes,
        "bare_memory": arrived.megabytes,
    }


BENCHMARK: Final = Benchmark(
    "many",
    "200 subscriptions of 50 channels each in one process, 2,000 additions a second in all for 5 seconds, one to each "
    "channel, published by another process. Ours is `tally run`: until a client of Redis that waits for it is told of "
    "the journal's entry, which is written with the count; beside it as many poll loops through the SDK as it is "
    "shipped, fifty to a client, in a process of their own, too: until they have the event in hand; and once more "
    "through the worker's own client, which shows what counting adds. Memory is a process's peak.",
    (
        Figure("ours50", "published to counted, p50", "ms"),
        Figure("bare50", "published to arrived at bare loops, p50", "ms"),
        Figure("ours99", "published to counted, p99", "ms"),
        Figure("bare99", "published to arrived at bare loops, p99", "ms"),
        Figure("own99", "published to arrived at bare loops over our client, p99", "ms"),
        Ratio("ours99", "bare99", "counted / arrived, p99", at_most=1.5),
        Ratio("ours99", "own99", "counted / arrived over our client, p99"),
        Figure("memory", "memory, ours", "MB", at_most=400),
        Figure("bare_memory", "memory, bare loops", "MB"),
    ),
    one_round,
)
