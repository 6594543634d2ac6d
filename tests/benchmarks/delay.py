"""How long an event takes from being published to being counted, beside how long it takes to arrive at all."""

from collections.abc import Mapping
from typing import Final

from tests.benchmarks.children import bare, ours
from tests.benchmarks.harness import Benchmark, Difference, Figure, expect, percentile
from tests.benchmarks.load import found, history, truth
from tests.benchmarks.loopback import Loopback, published
from tests.redis_server import RedisServer

RATE: Final = 500
SECONDS: Final = 5
CHANNELS: Final = 20


async def one_round(size: float) -> Mapping[str, float]:
    """Let both hear the same events, one after the other."""
    events = history(
        max(CHANNELS, round(RATE * SECONDS * size)), channels=CHANNELS, removals=0, twice=0
    )
    channels = [sorted({event.identity.channel for event in events})]
    server = RedisServer()
    try:
        with Loopback("publish", published(events)) as pubnub:
            counted = await ours(pubnub, server.url, channels, RATE, len(events))
            arrived = await bare(pubnub, channels, RATE, len(events))
            own = await bare(pubnub, channels, RATE, len(events), own=True)
        expect(truth(events), await found(server.url, events), "ours")
        expect([len(events)] * 3, [len(each.ages) for each in (counted, arrived, own)], "events")
    finally:
        server.stop()
    return {
        f"{who}{share}": percentile(told.ages, share / 100)
        for who, told in (("ours", counted), ("bare", arrived), ("own", own))
        for share in (50, 99)
    }


BENCHMARK: Final = Benchmark(
    "latency",
    "500 additions a second for 5 seconds, published by another process to one subscription of 20 channels. Ours is "
    "`tally run` in a process of its own: until a client of Redis that waits for it is told of the journal's entry, "
    "which is written with the count. The floor is a poll loop through the SDK as it is shipped, in a process of its "
    "own, too: until it has the event in hand; a second one goes through the worker's own client, which is quicker, so "
    "that what counting adds shows. All read one clock.",
    (
        Figure("ours50", "published to counted, p50", "ms"),
        Figure("bare50", "published to arrived, p50", "ms"),
        Difference("ours50", "bare50", "counted later than arrived, p50", "ms", at_most=3),
        Difference(
            "ours50", "own50", "counted later than arrived over our client, p50", "ms", at_most=3
        ),
        Figure("ours99", "published to counted, p99", "ms"),
        Figure("bare99", "published to arrived, p99", "ms"),
        Difference("ours99", "bare99", "counted later than arrived, p99", "ms", at_most=15),
        Difference(
            "ours99", "own99", "counted later than arrived over our client, p99", "ms", at_most=15
        ),
    ),
    one_round,
)
