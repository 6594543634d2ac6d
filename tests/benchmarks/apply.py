"""Events into Redis: the script and what leads to it, beside what a team would write instead."""

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, cast

import redis as synchronous
from redis.asyncio import Redis

from reaction_tally.keys import Keys
from tests.benchmarks.harness import Benchmark, Figure, Ratio, expect
from tests.benchmarks.load import Counts, broken_counts, found, history, truth
from tests.redis_server import RedisServer
from worker.applying.apply import Applier
from worker.domain.action import Added, Observed, Origin
from worker.live.group_commit import GROUP_EVENTS
from worker.source.backoff import elapsed_clock
from worker.store.batch import MAX_BATCH, batched
from worker.store.connection import connect
from worker.store.redis_retry import RedisRetry
from worker.store.store import Store
from worker.store.tables import Tables

EVENTS: Final = 500_000
CHANNELS: Final = 20
PIPELINED: Final = 500
STREAMS: Final = 4
"""Applied side by side; each has a part of the channels."""
CONCURRENCY: Final = CHANNELS // STREAMS * PIPELINED
"""Events a stream applies at once: 500 of each of its channels on average, in their order.

The worker cuts them into calls of at most ``MAX_BATCH`` events, over several channels.
"""

KEYS: Final = Keys()


@lru_cache(maxsize=1)
def events_of(count: int) -> list[Observed]:
    """Return the events; they are the same in each round."""
    return history(count, channels=CHANNELS)


async def ours_live(redis: Redis, events: Sequence[Observed]) -> None:
    """Apply them as a worker does under load: one group after the other.

    The calls of a group run at once, each on a connection of its own.
    """
    applier = Applier(Store(redis, KEYS), Tables(redis, KEYS), RedisRetry(elapsed_clock), 60)
    for start in range(0, len(events), GROUP_EVENTS):
        await applier.apply(events[start : start + GROUP_EVENTS], Origin.LIVE, elapsed_clock())


async def ours(redis: Redis, events: Sequence[Observed]) -> None:
    """Apply them as well as it goes: four streams, and the calls of each run at once.

    Each call that runs has a connection of its own.
    """
    applier = Applier(Store(redis, KEYS), Tables(redis, KEYS), RedisRetry(elapsed_clock), 60)

    async def stream(own: Sequence[Observed]) -> None:
        for start in range(0, len(own), CONCURRENCY):
            await applier.apply(own[start : start + CONCURRENCY], Origin.LIVE, elapsed_clock())

    shares: dict[int, list[Observed]] = {}
    for event in events:
        shares.setdefault(int(event.identity.channel[-4:]) % STREAMS, []).append(event)
    await asyncio.gather(*map(stream, shares.values()))


def users_of(event: Observed) -> str:
    """Return the key of the set of users who reacted with a value, as a team would name it."""
    it = event.identity
    return f"{KEYS.actions(it.channel, it.message_timetoken)}:{it.type}:{it.value}"


def commands(pipe: Any, event: Observed) -> None:
    """Add what counts an event: a set of users, and a count that follows blindly."""
    it, sign = event.identity, 1 if isinstance(event, Added) else -1
    (pipe.sadd if sign == 1 else pipe.srem)(users_of(event), it.uuid)
    counts = KEYS.counts(it.channel, it.message_timetoken)
    pipe.hincrby(counts, f"{it.type}:{it.value}", sign)


async def pipelined(redis: Redis, events: Sequence[Observed]) -> None:
    """Blind, through asyncio and one connection: 500 events in a pipeline.

    No answer is looked at.
    """
    for part in batched(events, PIPELINED):
        pipe = cast("Any", redis.pipeline(transaction=False))
        for event in part:
            commands(pipe, event)
        await pipe.execute()


async def blocking(redis: Redis, events: Sequence[Observed]) -> None:
    """Blind, through the client that blocks, and one connection; hiredis packs the commands."""
    options = redis.connection_pool.connection_kwargs
    with synchronous.Redis(host=options["host"], port=options["port"]) as client:
        for part in batched(events, PIPELINED):
            pipe = cast("Any", client.pipeline(transaction=False))
            for event in part:
                commands(pipe, event)
            pipe.execute()


async def floor(redis: Redis, events: Sequence[Observed]) -> None:
    """The least a server can do to keep who and how many: it is not even right."""
    for part in batched(events, PIPELINED):
        pipe = cast("Any", redis.pipeline(transaction=False))
        for event in part:
            it = event.identity
            field = f"{it.type}:{it.value}:{it.uuid}"
            pipe.hsetnx(
                KEYS.actions(it.channel, it.message_timetoken), field, event.action_timetoken
            )
            pipe.hincrby(KEYS.counts(it.channel, it.message_timetoken), f"{it.type}:{it.value}", 1)
        await pipe.execute()


def unheeded(events: Sequence[Observed]) -> Counts:
    """Return the counts if each event counts, also a repeated one; zeros stay."""
    counts: Counts = Counter()
    for event in events:
        it = event.identity
        counts[it.channel, it.message_timetoken, it.type, it.value] += (
            1 if isinstance(event, Added) else -1
        )
    return counts


OWN: Final = (ours, ours_live)

Way = Callable[[Redis, Sequence[Observed]], Awaitable[None]]


async def timed(
    way: Way, events: Sequence[Observed], expected: Counts | None
) -> tuple[float, float]:
    """Return seconds, and the server's own microseconds, of one way on a server of its own."""
    server = RedisServer()
    try:
        # Peers get redis-py as it comes.
        async with (
            connect(server.url)
            if way in OWN
            else Redis.from_url(server.url, decode_responses=True) as redis
        ):
            await redis.ping()
            await redis.config_resetstat()
            gc.collect()
            gc.freeze()  # the events themselves are not what is measured
            began = time.perf_counter()
            await way(redis, events)
            seconds = time.perf_counter() - began
            gc.unfreeze()
            stats = await redis.info("commandstats")
            if way in OWN:
                expect(0, await broken_counts(redis, events), way.__name__)
        if expected is not None:
            out = await found(server.url, events)
            # Where a peer leaves a count of zero, it is not held against it.
            expect(+expected, out if way in OWN else +out, way.__name__)
        # What a script calls is part of its own time, and listed by itself as well.
        commands = ("cmdstat_evalsha",) if way in OWN else ("cmdstat_hsetnx", "cmdstat_hincrby")
        return seconds, sum(stats[command]["usec"] for command in commands if command in stats)
    finally:
        server.stop()


async def one_round(size: float) -> Mapping[str, float]:
    """Measure every way once."""
    events = events_of(round(EVENTS * size))
    seconds, busy = await timed(ours, events, truth(events))
    grouped, _ = await timed(ours_live, events, truth(events))
    piped, _ = await timed(pipelined, events, unheeded(events))
    blocked, _ = await timed(blocking, events, unheeded(events))
    _, least = await timed(floor, events, None)
    return {
        "ours": len(events) / seconds,
        "live": len(events) / grouped,
        "pipelined": len(events) / piped,
        "blocking": len(events) / blocked,
        "server": busy / len(events),
        "floor": least / len(events),
    }


BENCHMARK: Final = Benchmark(
    "apply",
    "500,000 events, 15 % removals, 2 % repeated, 20 channels, 5,000 messages by Zipf's law, "
    "36-character uuids, into a Valkey on loopback. Ours sends calls of "
    f"at most {MAX_BATCH} events over several channels, and several calls at once, each on a "
    f"connection of its own. At its best it applies {STREAMS} parts of the channels side by side, "
    f"{CONCURRENCY:,} events at once in each. It keeps tombstones, an index and a journal beside "
    "the counts. (a) and (b) send SADD or SREM and HINCRBY over one connection, 500 events in a "
    "pipeline, and look at no answer: they count repetitions, and are wrong after any loss or "
    "repetition.",
    (
        Figure("ours", "ours, at its best", "events/s"),
        Figure("live", "ours, 2,000 at once, as live events are", "events/s"),
        Figure("pipelined", "(a) blind pipeline (counts repetitions), asyncio", "events/s"),
        Figure("blocking", "(b) blind pipeline (counts repetitions), blocking client", "events/s"),
        Ratio("live", "blocking", "ours, 2,000 at once / (b)", at_least=1),
        Ratio("ours", "blocking", "ours, at its best / (b)"),
        Figure("server", "server's time for an event, ours", "µs"),
        Figure("floor", "server's time for HSETNX + HINCRBY", "µs"),
        Ratio("server", "floor", "server's time, ours / floor", at_most=3.5),
    ),
    one_round,
)
