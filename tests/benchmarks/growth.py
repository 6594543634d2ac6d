"""The cost of an event with a hundred times as many messages, channels or actions a message."""

import gc
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast

from reaction_tally.keys import Keys
from tests.benchmarks.answering import FIRST
from tests.benchmarks.harness import Benchmark, Figure, Line, Ratio, expect
from tests.benchmarks.load import VALUES, broken_counts, found, truth
from tests.redis_server import RedisServer
from tests.unclaimed import UnclaimedReader
from worker.applying.apply import Applier
from worker.domain.action import Added, Identity, Observed, Origin, Removed
from worker.source.backoff import elapsed_clock
from worker.store.connection import connect
from worker.store.redis_retry import RedisRetry
from worker.store.store import Store
from worker.store.tables import Tables

EVENTS: Final = 8_000
"""Measured events: as many removals as additions, so that nothing grows meanwhile."""
CALL: Final = 400
"""Events of a call: 100 of each of four channels."""
MESSAGES: Final = 10
"""Messages of each channel in a call, however many there are."""
READ: Final = 50
"""Messages that are read together."""
READS: Final = 20
TIMES: Final = (1, 10, 100)
MOST: Final = 1.5
"""Nothing is searched from end to end; but so much more exceeds the processor's caches."""
KEYS: Final = Keys()


@dataclass(frozen=True, slots=True)
class Extent:
    """How much there is."""

    channels: int
    messages: int
    """In all channels together."""
    actions: int
    """Of each message."""


def grown(what: str, times: int) -> Extent:
    """Return so many times as much; a hundred times 250 actions is PubNub's limit of a message."""
    if what == "channels":
        return Extent(channels=4 * times, messages=40 * times, actions=20)
    if what == "messages":
        return Extent(channels=4, messages=400 * times, actions=5)
    return Extent(channels=4, messages=4, actions=250 * times)


class History:
    """First all there is, then removals and additions in turn."""

    def __init__(self, extent: Extent) -> None:
        self._random = random.Random(1)
        self._extent = extent
        self._number = 0
        self._live: list[list[Added]] = [[] for _ in range(extent.messages)]

    def first(self) -> list[Observed]:
        """Return all there is, message by message."""
        extent = self._extent
        return [self._add(m) for m in range(extent.messages) for _ in range(extent.actions)]

    def call(self) -> Iterator[Observed]:
        """Yield the events of one call: 100 of each of four channels, on ten messages of each."""
        channels, messages_each = (
            self._extent.channels,
            self._extent.messages // self._extent.channels,
        )
        for channel in self._random.sample(range(channels), CALL // 100):
            messages = self._random.sample(range(messages_each), min(messages_each, MESSAGES))
            for number in range(100):
                message = self._random.choice(messages) * channels + channel
                yield self._add(message) if number % 2 else self._remove(message)

    def _add(self, message: int) -> Observed:
        self._number += 1
        at, uuid = str(FIRST + 2 * self._number), f"{self._random.getrandbits(144):036x}"
        channel = f"channel-{message % self._extent.channels:04d}"
        value = self._random.choice(VALUES)
        added = Added(Identity(channel, str(FIRST - 1 - message), "reaction", value, uuid), at, at)
        self._live[message].append(added)
        return added

    def _remove(self, message: int) -> Observed:
        live = self._live[message]
        if not live:
            return self._add(message)
        self._number += 1
        gone = live.pop(self._random.randrange(len(live)))
        return Removed(gone.identity, gone.action_timetoken, str(FIRST + 2 * self._number))


async def cost(extent: Extent, size: float) -> tuple[float, float, float]:
    """Return microseconds: of an event, of the server for an event, of reading a message."""
    history = History(extent)
    before = history.first()
    calls = [list(history.call()) for _ in range(max(1, round(EVENTS * size / CALL)))]
    events = [event for call in calls for event in call]
    # As in deploy/redis.conf: a longer listpack is searched from end to end.
    server = RedisServer(None, **{"hash-max-listpack-entries": "128"})
    try:
        async with connect(server.url) as redis:
            applier = Applier(
                Store(redis, KEYS), Tables(redis, KEYS), RedisRetry(elapsed_clock), 60
            )
            await apply(applier, [before[at : at + 5_000] for at in range(0, len(before), 5_000)])
            await redis.config_resetstat()
            gc.freeze()
            seconds = await apply(applier, calls)
            stats = cast("Any", await redis.info("commandstats"))["cmdstat_evalsha"]
            read = await reading(server.url, events)
            expect(truth(before + events), await found(server.url, before + events), str(extent))
            expect(0, await broken_counts(redis, events[:1000]), str(extent))
    finally:
        gc.unfreeze()
        server.stop()
    return seconds * 1e6 / len(events), stats["usec"] / len(events), read


async def apply(applier: Applier, calls: Sequence[Sequence[Observed]]) -> float:
    """Apply one call after the other; return the seconds."""
    began = time.perf_counter()
    for call in calls:
        await applier.apply(call, Origin.LIVE, elapsed_clock())
    return time.perf_counter() - began


async def reading(url: str, events: Sequence[Observed]) -> float:
    """Return microseconds for a message of one channel, read with others in one round trip."""
    channel = events[0].identity.channel
    identities = [event.identity for event in events if event.identity.channel == channel]
    messages = sorted({identity.message_timetoken for identity in identities})[:READ]
    async with UnclaimedReader.from_url(url) as reader:
        await reader.get_many(channel, messages)
        began = time.perf_counter()
        for _ in range(READS):
            await reader.get_many(channel, messages)
        return (time.perf_counter() - began) * 1e6 / READS / len(messages)


async def one_round(what: str, size: float) -> Mapping[str, float]:
    """Measure one thing at one, ten and a hundred times its size."""
    values: dict[str, float] = {}
    for times in TIMES:
        extent = grown(what, max(1, round(times * size)))
        event, server, read = await cost(extent, size)
        values |= {f"event{times}": event, f"server{times}": server, f"read{times}": read}
    return values


def lines() -> Iterator[Line]:
    """Yield what is measured of each thing that grows."""
    of = {"event": "an event", "server": "server's time for an event", "read": "a message read"}
    for key, words in of.items():
        yield from (Figure(f"{key}{times}", f"{words}, {times} ×", "µs") for times in TIMES)
        yield Ratio(f"{key}100", f"{key}1", f"{words}, 100 × / 1 ×", at_most=MOST)


def benchmark(what: str) -> Benchmark:
    """Return the benchmark of one thing that grows."""
    extents = [grown(what, times) for times in TIMES]
    sizes = [
        f"{extent.channels:,} channels, {extent.messages:,} messages of {extent.actions:,} actions"
        for extent in extents
    ]
    return Benchmark(
        f"growth-{what}",
        "400 events at once, as many removals as additions, 100 of each of four channels, on ten "
        f"messages of each or as many as there are. There are {'; '.join(sizes)}.",
        tuple(lines()),
        partial(one_round, what),
    )


MESSAGES_GROW, CHANNELS_GROW, ACTIONS_GROW = map(benchmark, ("messages", "channels", "actions"))
