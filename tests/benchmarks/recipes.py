"""Each recipe of the client's README, beside a page by hand and a page from PubNub."""

import gc
import statistics
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from redis.asyncio import Redis

from reaction_tally import AsyncTallyReader
from reaction_tally.keys import Keys
from tests.benchmarks import latency
from tests.benchmarks.cookbook import HALL, RECIPES
from tests.benchmarks.harness import Benchmark, Figure, Line, Ratio, expect
from tests.benchmarks.history import get_actions, history_at_once, history_with_actions, stored
from tests.benchmarks.latency import Traffic, away, line
from tests.benchmarks.listing import served
from tests.benchmarks.page import by_hand
from tests.benchmarks.room import MESSAGES, ROOM, STARS, USERS, Room, Screen, room, true_screen
from tests.claimed import claim
from tests.emulator.clients import asyncio_sdk
from tests.redis_server import RedisServer
from worker.domain.action import Origin
from worker.store.batch import MAX_BATCH, batched
from worker.store.connection import connect
from worker.store.store import Store

LARGE_ACTIONS: Final = 25_000
"""PubNub's limit."""
TIMES: Final = 100
TURNS: Final = 5
"""Between which the ways change, where Redis is asked for its figures."""
MILLISECOND: Final = 0.001
PUBNUB_SECONDS: Final = 0.05
PUBNUB_TIMES: Final = 3

Read = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Pubnub:
    """A way to read the page without tallies."""

    key: str
    what: str
    read: Callable[[Any, str], Awaitable[Screen]]


MINE: Final = "page, what is mine"
PUBNUB: Final = (
    Pubnub("history", "PubNub's history with actions, 25 messages a request", history_with_actions),
    Pubnub("once", "history with actions, all requests at once", history_at_once),
    Pubnub("actions", "PubNub's get-actions, 100 actions a request", get_actions),
)


async def prepare(admin: Any, room: Room) -> None:
    """Count the actions, know their channels, and put another one in doubt."""
    await claim(admin)
    store = Store(admin, Keys())
    for channel, actions in ((ROOM, room.actions), (STARS, room.stars)):
        for part in batched(actions, MAX_BATCH):
            await store.apply_all([(channel, part)], Origin.LIVE)
    await admin.sadd(Keys().channels, ROOM, STARS)
    await admin.hset(Keys().owed(HALL), "start", 1)


async def checked_reads(stack: AsyncExitStack, port: int, room: Room) -> dict[str, Read]:
    """Return the reads of Redis at this port; each of them was right once."""
    address = f"redis://127.0.0.1:{port}"
    reader = await stack.enter_async_context(AsyncTallyReader.from_url(address))
    redis = await stack.enter_async_context(Redis.from_url(address, decode_responses=True))
    reads: dict[str, Read] = {}
    for recipe in RECIPES:
        reads[recipe.key] = partial(recipe.read, reader, room)
        found = recipe.plain(await reads[recipe.key]())
        expect(recipe.truth(room), found, recipe.key)
    reads["hand"] = partial(by_hand, redis, MESSAGES, room.me)
    expect(true_screen(room, room.me), await reads["hand"](), "by hand")
    return reads


async def in_turn(reads: Mapping[str, Read], times: int) -> dict[str, float]:
    """Return the median milliseconds of each read, and those of this process's processor."""
    seconds: dict[str, list[float]] = {key: [] for key in reads}
    computed: dict[str, list[float]] = {key: [] for key in reads}
    for _ in range(times):
        for key, read in reads.items():
            began, ran = time.perf_counter(), time.process_time()
            await read()
            computed[key].append(time.process_time() - ran)
            seconds[key].append(time.perf_counter() - began)
    values = {f"{key}_ms": 1000 * statistics.median(spent) for key, spent in seconds.items()}
    return values | {f"{key}_cpu": 1000 * statistics.mean(it) for key, it in computed.items()}


async def in_redis(admin: Any, reads: Mapping[str, Read], times: int) -> dict[str, float]:
    """Return the milliseconds of Redis's processor and the commands of each read."""
    values: dict[str, float] = defaultdict(float)
    for _ in range(TURNS):
        for key, read in reads.items():
            before = await admin.info("cpu", "stats")
            for _ in range(times):
                await read()
            after = await admin.info("cpu", "stats")
            cpu = sum(after[name] - before[name] for name in ("used_cpu_user", "used_cpu_sys"))
            commands = after["total_commands_processed"] - before["total_commands_processed"]
            asked = 1  # INFO itself
            values[f"{key}_server"] += 1000 * cpu / times / TURNS
            values[f"{key}_commands"] += (commands - asked) / times / TURNS
    return values


async def from_redis(room: Room, times: int) -> dict[str, float]:
    """Return what each read of Redis costs, near and a millisecond away."""
    with RedisServer() as server:
        async with connect(server.url) as admin, AsyncExitStack() as stack:
            await prepare(admin, room)
            near = await checked_reads(stack, server.port, room)
            values = await in_turn(near, times)
            values |= await in_redis(admin, near, max(1, times // TURNS))
            distance = stack.enter_context(away(server.port, MILLISECOND))
            far = await checked_reads(stack, distance.port, room)
            distant = await in_turn(far, times)
            for key, read in far.items():
                values[f"{key}_away"] = distant[f"{key}_ms"]
                before = distance.traffic()
                await read()
                values |= traffic(key, distance.traffic().since(before))
    return values


def traffic(key: str, carried: Traffic) -> dict[str, float]:
    """Return the figures of what a line has carried."""
    return {
        f"{key}_trips": carried.round_trips,
        f"{key}_up": carried.up / 1000,
        f"{key}_down": carried.down / 1000,
    }


async def from_pubnub(room: Room, size: float) -> dict[str, float]:
    """Return what each way to read the page from PubNub costs, near and far."""
    values: dict[str, float] = {}
    truth = true_screen(room, room.me)
    seconds = PUBNUB_SECONDS * min(1, 10 * size)
    async with served(stored(room.actions), is_compressed=True) as origin:
        async with asyncio_sdk(origin) as sdk:
            reads = {way.key: partial(way.read, sdk, room.me) for way in PUBNUB}
            for key, read in reads.items():
                expect(truth, await read(), key)
            values |= await in_turn(reads, PUBNUB_TIMES)
        with line(int(origin.rpartition(":")[2]), seconds) as far:
            for way in PUBNUB:
                values |= await far_from_pubnub(way, far, room.me, truth)
    return values


async def far_from_pubnub(
    way: Pubnub, far: latency.Line, me: str, truth: Screen
) -> dict[str, float]:
    """Return what one read costs at PubNub's distance. It is so long that one is enough."""
    async with asyncio_sdk(f"127.0.0.1:{far.port}") as sdk:
        before = far.traffic()
        began = time.perf_counter()
        found = await way.read(sdk, me)  # to open a connection takes no time on loopback
        seconds = time.perf_counter() - began
        carried = far.traffic().since(before)
    expect(truth, found, way.key)
    return {f"{way.key}_away": 1000 * seconds} | traffic(way.key, carried)


async def one_round(size: float, large: int = USERS) -> dict[str, float]:
    """Read in every way."""
    read = room(max(USERS, round(large * size)))
    gc.freeze()  # what this benchmark holds is no part of a read
    try:
        redis = await from_redis(read, max(2, round(TIMES * size)))
        return redis | await from_pubnub(read, size)
    finally:
        gc.unfreeze()


async def large_round(size: float) -> dict[str, float]:
    """Read a room with a very large message."""
    return await one_round(size, LARGE_ACTIONS)


def lines() -> Iterator[Line]:
    """Yield the figures of each way, then a page beside the others."""
    for recipe in RECIPES:
        yield from of_redis(recipe.key, recipe.what, 1)
    yield from of_redis("hand", "redis-py in two steps", 2)
    for way in PUBNUB:
        yield Figure(f"{way.key}_trips", f"{way.what}: requests", "")
        yield Figure(f"{way.key}_away", f"{way.what}: 50 ms a request", "ms")
        yield from of_all(way.key, way.what)
    yield from beside("hand", "redis-py in two steps", "away", "cpu", "server")
    for way in PUBNUB:
        yield from beside(way.key, way.what, "away", "cpu", "down")


def of_redis(key: str, what: str, most_trips: int) -> Iterator[Line]:
    """Yield the figures of a read of Redis."""
    yield Figure(f"{key}_trips", f"{what}: round trips", "", at_most=most_trips)
    yield Figure(f"{key}_commands", f"{what}: commands, those of a script included", "")
    yield Figure(f"{key}_away", f"{what}: a millisecond away", "ms")
    yield Figure(f"{key}_server", f"{what}: processor of Redis", "ms")
    yield from of_all(key, what)


def of_all(key: str, what: str) -> Iterator[Line]:
    """Yield the figures that every way has."""
    yield Figure(f"{key}_ms", f"{what}: on loopback", "ms")
    yield Figure(f"{key}_cpu", f"{what}: processor of the client", "ms")
    yield Figure(f"{key}_up", f"{what}: sent", "kB")
    yield Figure(f"{key}_down", f"{what}: received", "kB")


MEASURES: Final = {
    "away": "time, each at its distance",
    "cpu": "processor of the client",
    "server": "processor of Redis",
    "down": "received",
}


def beside(key: str, what: str, *measures: str) -> Iterator[Line]:
    """Yield another way's figures, divided by those of a page."""
    for measure in measures:
        title = f"{what} / {MINE}: {MEASURES[measure]}"
        yield Ratio(f"{key}_{measure}", f"mine_{measure}", title)


WORK: Final = (
    f"Read {len(MESSAGES)} messages with {USERS} actions each, five of them read receipts, in each "
    "way of the client's README. Beside it the same page without tallies: counts, and what is mine."
    " Redis is a millisecond away, PubNub 50 ms. PubNub's part is played by a stand-in that "
    "answers in its documented form and compresses everything; its history has the messages, too."
)
RECIPES_BENCHMARK: Final = Benchmark("recipes", WORK, tuple(lines()), one_round)
RECIPES_LARGE: Final = Benchmark(
    "recipes-large",
    f"The same, where one of the messages has {LARGE_ACTIONS:,} actions.",
    tuple(lines()),
    large_round,
)
