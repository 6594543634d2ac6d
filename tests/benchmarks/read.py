"""Reading the tallies of a screen: at once, or message by message."""

import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, cast

from redis.asyncio import Redis

from reaction_tally import AsyncTallyReader
from reaction_tally.keys import Keys
from tests.benchmarks.harness import Benchmark, Figure, Ratio, expect
from tests.benchmarks.latency import Line, away, pings
from tests.claimed import claim
from tests.redis_server import RedisServer
from worker.domain.action import Added, Identity, Origin
from worker.store.connection import connect
from worker.store.store import Store

FIRST: Final = 17_600_000_000_000_000
MESSAGES: Final = tuple(str(FIRST + number) for number in range(100))
VALUES: Final = ("👍", "❤️", "😂", "🎉", "😮", "😢", "🚀", "👀")
ACTIONS: Final = 2_500
KEYS: Final = {message: Keys().counts("room", message) for message in MESSAGES}
LATENCY_SECONDS: Final = 0.001
BATCH: Final = 100
REDIS_ONLY: Final = 100
"""How often the screen is read in a round."""

Screen = Mapping[str, Mapping[str, Mapping[str, int]]]
"""message timetoken → type → value → count"""
Read = Callable[[], Awaitable[Screen]]


def actions() -> list[Added]:
    """Return the reactions: 25 users to each message, spread over eight values."""
    added = []
    for number in range(ACTIONS):
        message, user = MESSAGES[number % len(MESSAGES)], number // len(MESSAGES)
        value = VALUES[user if user < len(VALUES) else user % 3]
        at = str(FIRST + 1000 + number)
        added.append(
            Added(Identity("room", message, "reaction", value, f"user-{user:031d}"), at, at)
        )
    return added


def counted(added: Iterable[Added]) -> Screen:
    """Return the counts that follow from it."""
    screen: dict[str, dict[str, dict[str, int]]] = {
        message: {"reaction": {}} for message in MESSAGES
    }
    for (message, value), count in Counter(
        (it.identity.message_timetoken, it.identity.value) for it in added
    ).items():
        screen[message]["reaction"][value] = count
    return screen


TRUTH: Final = counted(actions())


async def message_by_message(redis: Redis) -> Screen:
    """Read one message after the other."""
    asked = cast("Any", redis)
    return {message: parsed(await asked.hgetall(key)) for message, key in KEYS.items()}


async def pipelined(redis: Redis) -> Screen:
    """Read with redis-py alone, all at once, each field split and each count a number."""
    pipe = cast("Any", redis).pipeline(transaction=False)
    for key in KEYS.values():
        pipe.hgetall(key)
    return {
        message: parsed(fields) for message, fields in zip(KEYS, await pipe.execute(), strict=True)
    }


def parsed(fields: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """Return type → value → count, for types that have nothing encoded in them."""
    counts: dict[str, dict[str, int]] = {}
    for field, count in fields.items():
        type, _, value = field.partition(":")
        counts.setdefault(type, {})[value] = int(count)
    return counts


async def timed(
    reads: Mapping[str, Read], times: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Read so often, in turn; return the median milliseconds of each reader on that clock."""
    for name, read in reads.items():
        expect(TRUTH, await read(), name)  # which opens the connection
    spent: dict[str, list[float]] = {name: [] for name in reads}
    for _ in range(times):
        for name, read in reads.items():
            began = clock()
            screen = await read()
            spent[name].append(1000 * (clock() - began))
            expect(TRUTH, screen, name)
    return {name: statistics.median(milliseconds) for name, milliseconds in spent.items()}


async def round_trips(read: Read, through: Line) -> int:
    """Return how many round trips one read takes, its connection being open."""
    before = through.round_trips()
    await read()
    return through.round_trips() - before


async def from_afar(port: int, times: int) -> dict[str, float]:
    """Return milliseconds and round trips of reading at a millisecond's distance."""
    with away(port, LATENCY_SECONDS, 2 * times) as far:
        address = f"redis://127.0.0.1:{far.port}"
        async with (
            AsyncTallyReader.from_url(address) as reader,
            Redis.from_url(address, decode_responses=True) as redis,
        ):
            contenders: dict[str, tuple[Read, int]] = {
                "ours": (lambda: reader.get_many("room", MESSAGES), times),
                "each": (lambda: message_by_message(redis), max(1, times // 10)),
            }
            values = {"ping": 1000 * statistics.median(pings(far.port, 2 * times))}
            for name, (read, often) in contenders.items():
                values |= await timed({name: read}, often, time.perf_counter)
                values[f"{name}_trips"] = await round_trips(read, far)
            expect(1, values["ours_trips"], "get_many, round trips")
            return values


async def from_near(url: str, times: int) -> dict[str, float]:
    """Return the milliseconds that reading costs this process, without any distance."""
    async with (
        AsyncTallyReader.from_url(url) as reader,
        Redis.from_url(url, decode_responses=True) as redis,
    ):
        reads: dict[str, Read] = {
            "ours_computed": lambda: reader.get_many("room", MESSAGES),
            "raw_computed": lambda: pipelined(redis),
        }
        return await timed(reads, times, time.process_time)


async def one_round(size: float) -> dict[str, float]:
    """Read the screen in every way."""
    server, times = RedisServer(), max(1, round(REDIS_ONLY * size))
    try:
        async with connect(server.url) as redis:
            await claim(redis)
            store, added = Store(redis, Keys()), actions()
            for start in range(0, len(added), BATCH):
                await store.apply_all([("room", added[start : start + BATCH])], Origin.LIVE)
        return await from_afar(server.port, times) | await from_near(server.url, times)
    finally:
        server.stop()


BENCHMARK: Final = Benchmark(
    name="read",
    work=(
        f"Read the tallies of {len(MESSAGES)} messages with {len(VALUES)} values each, a "
        "millisecond away from Redis (half of it each way), beside HGETALL message by message. "
        "Then, without the distance, the cost in the reading process, against redis-py's own "
        "pipeline and the shortest parsing."
    ),
    lines=(
        Figure("ours", "AsyncTallyReader.get_many", "ms"),
        Figure("each", "HGETALL message by message", "ms"),
        Figure("ping", "one PING on the same line, without any client", "ms"),
        Figure("ours_trips", "round trips of get_many, counted on the line", "", at_most=1),
        Figure("each_trips", "round trips of HGETALL message by message", ""),
        Ratio("each", "ours", "HGETALL message by message / ours", at_least=20),
        Figure("ours_computed", "computed by get_many, no distance", "ms"),
        Figure("raw_computed", "computed by redis-py alone, pipelined", "ms"),
        Ratio("ours_computed", "raw_computed", "get_many / redis-py alone, computed", at_most=2),
    ),
    round=one_round,
)
