"""Reading the tallies of the messages on a screen: in one question, message by message, or by counting actions."""

import multiprocessing
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, cast

from redis.asyncio import Redis

from tests.benchmarks.emulated import serve
from tests.benchmarks.harness import Benchmark, Figure, Ratio, expect
from tests.benchmarks.latency import Line, line, pings
from tests.emulator.clients import asyncio_sdk
from tests.redis_server import RedisServer
from worker.domain.action import Added, Identity, Origin
from worker.store.connection import connect
from worker.store.keys import Keys
from worker.store.reader import TallyReader
from worker.store.store import Store

FIRST: Final = 17_600_000_000_000_000
MESSAGES: Final = tuple(str(FIRST + number) for number in range(100))
VALUES: Final = ("👍", "❤️", "😂", "🎉", "😮", "😢", "🚀", "👀")
ACTIONS: Final = 2_500
KEYS: Final = {message: Keys().counts("room", message) for message in MESSAGES}
LATENCY_SECONDS: Final = 0.001
BATCH: Final = 100
REDIS_ONLY: Final = 100
"""How often the screen is read in a round; paging through the actions takes long enough to be done but once."""

Screen = Mapping[str, Mapping[str, Mapping[str, int]]]
"""message timetoken → type → value → count"""
Read = Callable[[], Awaitable[Screen]]


def actions() -> list[Added]:
    """Return who reacted: 25 users to each message, spread over eight values, the first of them most."""
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
    """Read as one does who has not thought of it: a question for each message, and its answer awaited."""
    asked = cast("Any", redis)
    return {message: parsed(await asked.hgetall(key)) for message, key in KEYS.items()}


async def pipelined(redis: Redis) -> Screen:
    """Read with redis-py alone, all questions at once, each field split and each count a number."""
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


async def by_counting(pubnub: Any) -> Screen:
    """Page through the channel's actions with PubNub's SDK, and count."""
    screen: dict[str, dict[str, dict[str, int]]] = {message: {} for message in MESSAGES}
    start = str(FIRST + 1000 + ACTIONS)
    while True:
        asked = pubnub.get_message_actions().channel("room").start(start).limit("100")
        page = (await asked.future()).result.actions
        if not page:
            return screen
        for action in page:
            values = screen[action.message_timetoken].setdefault(action.type, {})
            values[action.value] = values.get(action.value, 0) + 1
        start = min(action.action_timetoken for action in page)


@contextmanager
def pubnub_with_the_actions() -> Iterator[int]:
    """Yield the port of a PubNub that knows them, in a process of its own."""
    ours, theirs = multiprocessing.Pipe()
    its = [
        (added.identity.message_timetoken, added.identity.value, added.identity.uuid)
        for added in actions()
    ]
    process = multiprocessing.get_context("spawn").Process(
        target=serve, args=("room", FIRST + 1000, its, theirs), daemon=True
    )
    process.start()
    theirs.close()  # so that it is noticed if the process ends
    try:
        yield int(ours.recv())
    finally:
        process.kill()
        process.join()


async def timed(
    reads: Mapping[str, Read], times: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Read so often, in turn; return the median of each one's milliseconds on that clock."""
    for who, read in reads.items():
        expect(TRUTH, await read(), who)  # which opens the connection
    spent: dict[str, list[float]] = {who: [] for who in reads}
    for _ in range(times):
        for who, read in reads.items():
            began = clock()
            screen = await read()
            spent[who].append(1000 * (clock() - began))
            expect(TRUTH, screen, who)
    return {who: statistics.median(milliseconds) for who, milliseconds in spent.items()}


async def round_trips(read: Read, through: Line) -> int:
    """Return how many round trips one read takes, its connection being open."""
    before = through.round_trips()
    await read()
    return through.round_trips() - before


async def from_afar(url: str, port: int, times: int) -> dict[str, float]:
    """Return what it takes to read at a millisecond's distance: milliseconds, and round trips."""
    redis_port = int(url.rpartition(":")[2])
    with line(redis_port, 0) as no_way:
        distance = max(
            0.0, LATENCY_SECONDS - pings(no_way.port, 2 * times)[0]
        )  # forwarding takes its time as it is
    with line(redis_port, distance) as to_redis, line(port, distance) as to_pubnub:
        address = f"redis://127.0.0.1:{to_redis.port}"
        async with (
            TallyReader.from_url(address) as reader,
            Redis.from_url(address, decode_responses=True) as redis,
            asyncio_sdk(f"127.0.0.1:{to_pubnub.port}") as pubnub,
        ):
            contenders: tuple[tuple[str, Read, int, Line], ...] = (
                ("ours", lambda: reader.get_many("room", MESSAGES), times, to_redis),
                ("each", lambda: message_by_message(redis), max(1, times // 10), to_redis),
                ("paging", lambda: by_counting(pubnub), max(1, times // 50), to_pubnub),
            )
            values = {"ping": 1000 * statistics.median(pings(to_redis.port, 2 * times))}
            for who, read, often, through in contenders:
                values |= await timed({who: read}, often, time.perf_counter)
                values[f"{who}_trips"] = await round_trips(read, through)
            expect(1, values["ours_trips"], "get_many, round trips")
            return values


async def from_near(url: str, times: int) -> dict[str, float]:
    """Return what reading costs this process without any distance: milliseconds computed."""
    async with (
        TallyReader.from_url(url) as reader,
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
            store, added = Store(redis, Keys()), actions()
            for start in range(0, len(added), BATCH):
                await store.apply_all([("room", added[start : start + BATCH])], Origin.LIVE)
        with pubnub_with_the_actions() as port:
            values = await from_afar(server.url, port, times)
        return values | await from_near(server.url, times)
    finally:
        server.stop()


BENCHMARK: Final = Benchmark(
    name="read",
    work=(
        f"Read the tallies of {len(MESSAGES)} messages with {len(VALUES)} values each, a millisecond away from Redis "
        f"and from PubNub (half of it each way; a ping says what it comes to). Peers: HGETALL message by message; and "
        f"paging through the {ACTIONS:,} actions with PubNub's SDK and counting, against an emulator on this machine, "
        "which answers far quicker than PubNub. Then, without the distance, what reading costs the reading process, "
        "against redis-py's own pipeline and the shortest parsing."
    ),
    lines=(
        Figure("ours", "TallyReader.get_many", "ms"),
        Figure("each", "HGETALL message by message", "ms"),
        Figure("paging", "paging through the actions, and counting", "ms"),
        Figure("ping", "one PING on the same line, without any client", "ms"),
        Figure("ours_trips", "round trips of get_many, counted on the line", "", at_most=1),
        Figure("each_trips", "round trips of HGETALL message by message", ""),
        Figure("paging_trips", "round trips of paging", ""),
        Ratio("each", "ours", "HGETALL message by message / ours", at_least=20),
        Ratio("paging", "ours", "paging / ours"),
        Figure("ours_computed", "computed by get_many, no distance", "ms"),
        Figure("raw_computed", "computed by redis-py alone, pipelined", "ms"),
        Ratio("ours_computed", "raw_computed", "get_many / redis-py alone, computed", at_most=2),
    ),
    round=one_round,
)
