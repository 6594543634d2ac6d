"""What an event costs where there is ten and a hundred times as much: messages, channels, actions a message."""

import gc
import random
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, cast

from redis.asyncio import Redis

from tests.benchmarks.answering import FIRST
from tests.benchmarks.harness import Benchmark, Figure, Line, Ratio, expect
from tests.benchmarks.load import VALUES, broken_counts, found, truth
from tests.redis_server import RedisServer
from worker.applying.apply import Applier
from worker.domain.action import Added, Identity, Observed, Origin, Removed
from worker.source.backoff import elapsed_clock
from worker.store.connection import connect
from worker.store.keys import Keys
from worker.store.reader import TallyReader
from worker.store.redis_retry import RedisRetry
from worker.store.store import Store
from worker.store.tables import Tables

EVENTS: Final = 8_000
"""Measured, once all that is there is there: as many removals as additions, so that nothing grows meanwhile."""
CALL: Final = 400
"""Events at once: 100 of each of four channels."""
MESSAGES: Final = 10
"""Of each channel in a call, or as many as there are."""
READ: Final = 50
"""Messages read at once."""
TIMES: Final = (1, 10, 100)
MOST: Final = 1.5
"""Nothing is looked for from end to end; but what is a hundred times as much fits the processor's caches no longer."""

KEYS: Final = Keys()


@dataclass(frozen=True, slots=True)
class Extent:
    """How much there is."""

    channels: int = 4
    messages: int = 40
    """In all channels together."""
    actions: int = 20
    """Of each message."""


SMALLEST: Final = {
    "messages": Extent(messages=400, actions=5),
    "channels": Extent(channels=4, messages=40),
    "actions": Extent(messages=4, actions=250),
}
"""What grows, and where it begins. A hundred times 250 is PubNub's limit: 25,000 actions on one message."""


def grown(what: str, times: int) -> Extent:
    """Return so many times as much of it; channels bring their messages."""
    extent = SMALLEST[what]
    if what == "channels":
        return replace(extent, channels=extent.channels * times, messages=extent.messages * times)
    if what == "messages":
        return replace(extent, messages=extent.messages * times)
    return replace(extent, actions=extent.actions * times)


class Crowd:
    """Who reacts to what: first all there is, then as much again, each addition beside a removal."""

    def __init__(self, extent: Extent, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self._extent = extent
        self._number = 0
        self.live: list[list[Added]] = [[] for _ in range(extent.messages)]

    def first(self) -> Iterator[Observed]:
        """Yield what there is, message by message."""
        for message in range(self._extent.messages):
            for _ in range(self._extent.actions):
                yield self._add(message)

    def then(self, count: int) -> Iterator[Observed]:
        """Yield so many events more: each call has 100 of each of its channels, on some messages drawn anew.

        As many messages however many there are: the fewer events a message has in a call, the more each costs.
        """
        channels, each = self._extent.channels, self._extent.messages // self._extent.channels
        for start in range(0, count, CALL):
            drawn = self._random.sample(range(channels), min(channels, CALL // 100))
            messages = {
                channel: self._random.sample(range(each), min(each, MESSAGES)) for channel in drawn
            }
            for number in range(min(CALL, count - start)):
                channel = drawn[number % len(drawn)]
                message = self._random.choice(messages[channel]) * channels + channel
                yield self._add(message) if number % 8 < 4 else self._remove(message)

    def _add(self, message: int) -> Added:
        self._number += 1
        at, uuid = str(FIRST + 2 * self._number), f"{self._random.getrandbits(144):036x}"
        channel = f"channel-{message % self._extent.channels:04d}"
        it = Identity(
            channel, str(FIRST - 1 - message), "reaction", self._random.choice(VALUES), uuid
        )
        self.live[message].append(Added(it, at, at))
        return self.live[message][-1]

    def _remove(self, message: int) -> Observed:
        live = self.live[message]
        if not live:
            return self._add(message)
        index = self._random.randrange(len(live))
        live[index], live[-1] = live[-1], live[index]
        gone = live.pop()
        self._number += 1
        return Removed(gone.identity, gone.action_timetoken, str(FIRST + 2 * self._number))


@asynccontextmanager
async def filled(crowd: Crowd, seen: list[Observed]) -> AsyncIterator[tuple[str, Redis, Applier]]:
    """Yield a server on which all there is is there already."""
    # As deploy/redis.conf has it: what is packed is searched from end to end, and would make the smallest the slowest.
    server = RedisServer(None, **{"hash-max-listpack-entries": "128"})
    try:
        async with connect(server.url) as redis:
            applier = Applier(
                Store(redis, KEYS), Tables(redis, KEYS), RedisRetry(elapsed_clock), 60
            )
            seen += crowd.first()
            for start in range(0, len(seen), 5_000):
                await applier.apply(seen[start : start + 5_000], Origin.LIVE, elapsed_clock())
            yield server.url, redis, applier
    finally:
        gc.unfreeze()
        server.stop()


async def cost(extent: Extent, size: float) -> tuple[float, float, float]:
    """Return microseconds: of an event, of the server for an event, and of a message that is read."""
    crowd, seen = Crowd(extent), list[Observed]()
    async with filled(crowd, seen) as (url, redis, applier):
        events = list(crowd.then(max(CALL, round(EVENTS * size))))
        await redis.config_resetstat()
        gc.freeze()
        began = time.perf_counter()
        for start in range(0, len(events), CALL):
            await applier.apply(events[start : start + CALL], Origin.LIVE, elapsed_clock())
        seconds = time.perf_counter() - began
        server = cast("Any", await redis.info("commandstats"))["cmdstat_evalsha"]["usec"]
        read = await reading(url, events)
        expect(truth([*seen, *events]), (await found(url, [*seen, *events])), str(extent))
        expect(0, await broken_counts(redis, events[:1000]), str(extent))
        return seconds * 1e6 / len(events), server / len(events), read


async def reading(url: str, events: Sequence[Observed]) -> float:
    """Return microseconds for a message of one channel, read with others in one round trip."""
    channel = events[0].identity.channel
    messages = list(
        {e.identity.message_timetoken for e in events if e.identity.channel == channel}
    )[:READ]
    rounds = 20
    async with TallyReader.from_url(url) as reader:
        await reader.get_many(channel, messages)
        began = time.perf_counter()
        for _ in range(rounds):
            await reader.get_many(channel, messages)
        return (time.perf_counter() - began) * 1e6 / rounds / len(messages)


async def one_round(what: str, size: float) -> Mapping[str, float]:
    """Measure one thing at one, ten and a hundred times its size."""
    values = {}
    for times in TIMES:
        extent = grown(what, max(1, round(times * size)))
        values[f"event{times}"], values[f"server{times}"], values[f"read{times}"] = await cost(
            extent, size
        )
    return values


def lines(what: str) -> tuple[Line, ...]:
    """Return what is said of one thing that grows."""
    of = {"event": "an event", "server": "server's time for an event", "read": "a message read"}
    told: list[Line] = []
    for key, words in of.items():
        told += [Figure(f"{key}{times}", f"{words}, {times} ×", "µs") for times in TIMES]
        told.append(Ratio(f"{key}100", f"{key}1", f"{words}, 100 × / 1 ×", at_most=MOST))
    return tuple(told)


def benchmark(what: str) -> Benchmark:
    """Return the benchmark of one thing that grows."""
    at = [grown(what, times) for times in TIMES]
    sizes = "; ".join(
        f"{e.channels:,} channels, {e.messages:,} messages of {e.actions:,} actions" for e in at
    )
    return Benchmark(
        f"growth-{what}",
        "400 events at once on what is there already, as many removals as additions, 100 of each of four channels, on "
        f"ten messages or as many as there are. There are {sizes}.",
        lines(what),
        partial(one_round, what),
    )


BENCHMARKS: Final = tuple(map(benchmark, SMALLEST))
