"""From PubNub's answer to Redis: the worker, a team's own listener, and loops that only poll."""

import asyncio
import gc
import random
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import redis as synchronous
from pubnub.callbacks import SubscribeCallback
from pubnub.pubnub import PubNub

from tests.benchmarks.answering import ANSWER, FIRST
from tests.benchmarks.bare import (
    Messages,
    configured,
    own_client,
    own_polls,
    sdk_client,
    sdk_polls,
)
from tests.benchmarks.harness import Benchmark, Figure, Ratio, expect
from tests.benchmarks.load import Counts, answers, found, history, truth
from tests.benchmarks.loopback import Loopback
from tests.redis_server import RedisServer
from worker.applying.apply import Applier
from worker.domain.action import Observed
from worker.domain.position import Cursor
from worker.live.assignment import Assignment
from worker.live.gaps import CoveredChannels, Gaps
from worker.live.group_commit import GroupCommit
from worker.live.polling import Polling
from worker.live.subscription import Subscription
from worker.live.subscription_cursor import SubscriptionCursor
from worker.source.backoff import Backoff, elapsed_clock
from worker.source.live import Poller
from worker.source.names import Names
from worker.source.wire import CountedTypes
from worker.store.connection import connect
from worker.store.keys import Keys
from worker.store.redis_retry import RedisRetry
from worker.store.store import Store
from worker.store.tables import Tables

EVENTS: Final = 49_500
CHANNELS: Final = 20
FEW: Final = 5
"""A listener gets so small a part of them: enough for a rate."""
KEYS: Final = Keys()


@lru_cache(maxsize=4)
def events_of(count: int, channels: int) -> list[Observed]:
    """Return the events; they are the same in each round."""
    return history(count, channels=channels)


def names_of(events: Sequence[Observed]) -> list[str]:
    """Return the channels they are in."""
    return sorted({event.identity.channel for event in events})


async def ours(origin: str, url: str, channels: Sequence[str], count: int) -> float:
    """Follow as the worker does; return the seconds until the last cursor is saved."""
    async with connect(url) as redis, own_client(origin) as client:
        tables, names = Tables(redis, KEYS), Names(tuple(channels))
        applier = Applier(Store(redis, KEYS), tables, RedisRetry(elapsed_clock), 60)
        poller = Poller(client, names, Backoff(random.Random(1)), elapsed_clock)

        async def no_repair(*_: object) -> None: ...

        detector = applier.rollback_detector
        cursor = SubscriptionCursor(names, tables.cursors, detector, elapsed_clock)
        subscription = Subscription(
            Assignment(names),
            Polling(poller, CountedTypes(), elapsed_clock),
            GroupCommit(applier),
            CoveredChannels(names, tables.channels, client, Gaps(tables, no_repair), 600),
            cursor,
        )
        await tables.cursors.save(subscription.id, Cursor(str(FIRST), 1))
        last = str(FIRST + -(-count // ANSWER) * ANSWER)
        began = time.perf_counter()
        running = asyncio.create_task(subscription.run())
        while not running.done() and (not (at := cursor.newest) or at.timetoken != last):  # noqa: ASYNC110
            await asyncio.sleep(0.005)  # it tells nobody
        seconds = time.perf_counter() - began
        subscription.stop()
        await running
        return seconds


class Tally(SubscribeCallback):  # type: ignore[misc] # the SDK has no types
    """(a) The listener of the documentation, which counts instead of printing."""

    def __init__(self, url: str, count: int) -> None:
        self._redis = synchronous.Redis.from_url(url)
        self._left = count
        self.is_over = threading.Event()

    def message_action(self, _pubnub: Any, action: Any) -> None:
        """Count it."""
        self._redis.hincrby(
            KEYS.counts(action.channel, action.message_timetoken),
            f"{action.type}:{action.value}",
            1,
        )
        self._left -= 1
        if not self._left:
            self.is_over.set()

    def status(self, _pubnub: Any, _status: Any) -> None:
        """Nothing is wanted of it."""

    def presence(self, _pubnub: Any, _presence: Any) -> None:
        """As above."""


async def listening(origin: str, url: str, channels: Sequence[str], count: int) -> float:
    """Let a listener count; return the seconds until it has heard of every event."""
    pubnub, tally = PubNub(configured(origin)), Tally(url, count)
    pubnub.add_listener(tally)
    began = time.perf_counter()
    pubnub.subscribe().channels(list(channels)).execute()
    assert await asyncio.to_thread(tally.is_over.wait, 60)
    seconds = time.perf_counter() - began
    pubnub.stop()
    return seconds


async def bare(origin: str, _url: str, channels: Sequence[str], count: int) -> float:
    """(b) Poll through the SDK, and apply nothing."""
    async with sdk_client(origin) as pubnub:
        return await seconds_of(sdk_polls(pubnub, channels, str(FIRST)), count)


async def own(origin: str, _url: str, channels: Sequence[str], count: int) -> float:
    """(c) The same through the worker's own client."""
    async with own_client(origin) as client:
        return await seconds_of(own_polls(client, channels, Cursor(str(FIRST), 1)), count)


async def seconds_of(polls: AsyncIterator[Messages], count: int) -> float:
    """Return the seconds until so many messages have come."""
    arrived, began = 0, time.perf_counter()
    async for messages in polls:
        arrived += len(messages)
        if arrived >= count:
            break
    return time.perf_counter() - began


Way = Callable[[str, str, Sequence[str], int], Awaitable[float]]


async def rate(way: Way, events: Sequence[Observed], expected: Counts | None) -> float:
    """Return events a second of one way; its counts must be what is expected of it."""
    server = RedisServer()
    try:
        with Loopback("replay", answers(events)) as pubnub:
            gc.collect()
            gc.freeze()  # the events themselves are not what is measured
            seconds = await way(pubnub.origin, server.url, names_of(events), len(events))
            gc.unfreeze()
        if expected is not None:
            expect(expected, await found(server.url, events), way.__name__)
        return len(events) / seconds
    finally:
        server.stop()


def one_more_each(events: Sequence[Observed]) -> Counts:
    """Return what comes out where additions, removals and repetitions all look like additions."""
    return Counter(
        (it.channel, it.message_timetoken, it.type, it.value)
        for it in (event.identity for event in events)
    )


async def one_round(size: float) -> Mapping[str, float]:
    """Measure every way once."""
    count = max(2, round(EVENTS * size / ANSWER)) * ANSWER
    events, single = (events_of(count, channels) for channels in (CHANNELS, 1))
    few = events[: max(ANSWER, round(len(events) / FEW / ANSWER) * ANSWER)]
    return {
        "ours": await rate(ours, events, truth(events)),
        "listener": await rate(listening, few, one_more_each(few)),
        "bare": await rate(bare, events, None),
        "own": await rate(own, events, None),
        "single": await rate(ours, single, truth(single)),
    }


BENCHMARK: Final = Benchmark(
    "live",
    "49,500 events (15 % removals, 2 % repeated) in answers of 99 over loopback, one subscription, "
    "into a Valkey. (a), which gets a fifth of them, is the SDK's listener with a synchronous "
    "HINCRBY for each event: it cannot tell a removal from an addition, so its counts are wrong, "
    "and are compared with that. (b) only polls, through the SDK as it is shipped, and applies "
    "nothing; (c) does so through our client, which shows what applying costs.",
    (
        Figure("ours", "ours, 20 channels", "events/s"),
        Figure("listener", "(a) a listener that counts", "events/s"),
        Figure("bare", "(b) a bare poll loop", "events/s"),
        Figure("own", "(c) a bare poll loop over our client", "events/s"),
        Ratio("ours", "listener", "ours / (a)", at_least=3),
        Ratio("ours", "bare", "ours / (b)", at_least=0.6),
        Ratio("ours", "own", "ours / (c)"),
        Figure("single", "ours, a single channel", "events/s"),
    ),
    one_round,
)
