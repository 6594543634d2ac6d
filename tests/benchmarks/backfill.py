"""How fast history is replayed, beside the SDK that pages through several channels at once."""

import asyncio
import gc
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Final

from aiohttp import ClientSession
from msgspec.structs import replace
from pubnub.endpoints.message_actions.get_message_actions import GetMessageActions
from pubnub.pubnub_asyncio import PubNubAsyncio
from redis.commands.core import AsyncScript

from reaction_tally.keys import Keys
from tests.benchmarks.harness import Benchmark, Figure, Ratio, expect
from tests.benchmarks.listing import NOW, PAGE_SIZE, listed, pubnub
from tests.benchmarks.load import broken_counts, found, history, truth
from tests.emulator.clients import asyncio_sdk
from tests.redis_server import RedisServer
from worker.applying.apply import Applier
from worker.applying.retry import RetryPolicy
from worker.domain.action import Observed
from worker.domain.position import Range
from worker.history.backfill import Backfiller
from worker.source.backoff import Backoff, elapsed_clock
from worker.source.client import Client, Keyset
from worker.source.history import History
from worker.source.wire import CountedTypes
from worker.store.budget import BURST, Budget
from worker.store.connection import connect
from worker.store.redis_retry import RedisRetry
from worker.store.store import Store
from worker.store.tables import Tables

ACTIONS: Final = 100_000
CHANNELS: Final = 10
IN_ONE: Final = 0.4
"""The part of the actions that the single channel has: its pages come one by one."""
LATENCY_SECONDS: Final = 0.05
RATE: Final = 20
"""Requests a second: the default of TALLY_HISTORY_RATE."""
LIFTED: Final = 1e6
WINDOW_SECONDS: Final = 15.0
LEAST_WINDOW_SECONDS: Final = 0.1
APPLY_WAIT_SECONDS: Final = 60
KEYS: Final = Keys()
COUNT: Final = """
local at = 1
for key = 1, #KEYS, 2 do
  if redis.call('HSETNX', KEYS[key], ARGV[at], ARGV[at + 1]) == 1 then
    redis.call('HINCRBY', KEYS[key + 1], ARGV[at + 2], 1)
  end
  at = at + 3
end
"""
"""What a team needs for a page: a user counts once, also if a page comes twice."""


def even(count: int, channels: Sequence[str]) -> list[Observed]:
    """Return so many additions, as many in each channel."""
    spread = zip(history(count, removals=0, twice=0), cycle(channels), strict=False)
    return [
        replace(event, identity=replace(event.identity, channel=name)) for event, name in spread
    ]


@asynccontextmanager
async def worker(origin: str, url: str, rate: float) -> AsyncIterator[Backfiller]:
    """Yield a backfill as ``worker/service/parts.py`` builds it, on an empty Redis."""
    async with (
        connect(url) as redis,
        Client(Keyset("demo", "bench", origin=origin, tls=False)) as client,
    ):
        await redis.flushall()
        tables, budget = Tables(redis, Keys()), Budget(redis, Keys(), rate)
        applier = Applier(Store(redis, Keys()), tables, RedisRetry(elapsed_clock), 60)
        source = History(client, budget.take, elapsed_clock)
        policy = RetryPolicy(
            counted_types=CountedTypes(),
            backoff=lambda: Backoff(random.Random(1)),
            hold=budget.hold,
            clock=elapsed_clock,
            settle_seconds=60,
        )
        yield Backfiller(source, client.time, applier, tables, policy)


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay costs."""

    rate: float
    """Actions a second."""
    cpu: float
    """Microseconds of this process for an action."""


class Watch:
    """Measures from its creation."""

    def __init__(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def replayed(self, actions: int) -> Replayed:
        """Return what so many actions have cost."""
        began, cpu_began = self._began
        seconds = time.perf_counter() - began
        cpu = time.process_time() - cpu_began
        return Replayed(actions / seconds, cpu * 1e6 / actions)


async def ours(origin: str, url: str, events: Sequence[Observed]) -> Replayed:
    """Return what a backfill costs, the request budget lifted."""
    async with worker(origin, url, LIFTED) as backfill:
        watch = Watch()
        await backfill.run(channels(events), Range())
        replayed = watch.replayed(len(events))
    expect(truth(events), await found(url, events), "backfill")
    return replayed


async def theirs(origin: str, url: str, events: Sequence[Observed]) -> Replayed:
    """Return what it costs with the SDK: all channels side by side, a script call a page."""
    async with connect(url) as redis, asyncio_sdk(origin) as sdk:
        await redis.flushall()
        count = redis.register_script(COUNT)
        await redis.script_load(COUNT)
        watch = Watch()
        replays = [replay(sdk, count, channel) for channel in channels(events)]
        await asyncio.gather(*replays)
        replayed = watch.replayed(len(events))
    expect(truth(events), await found(url, events), "SDK")
    return replayed


async def replay(sdk: PubNubAsyncio, count: AsyncScript, channel: str) -> None:
    """Count a channel page by page, as the SDK's documentation shows it."""
    start = str(NOW)
    while True:
        request = GetMessageActions(sdk).channel(channel).start(start)
        answer = await request.future()
        expect(False, answer.is_error(), "SDK")
        actions = answer.result.actions
        if not actions:
            return
        await count(*page_of(channel, actions))
        start = actions[0].action_timetoken


def page_of(channel: str, actions: Sequence[Any]) -> tuple[list[str], list[str]]:
    """Return KEYS and ARGV of a page."""
    keys, args = list[str](), list[str]()
    for action in actions:
        message = action.message_timetoken
        tally = f"{action.type}:{action.value}"
        keys += (KEYS.actions(channel, message), KEYS.counts(channel, message))
        args += (f"{tally}:{action.uuid}", action.action_timetoken, tally)
    return keys, args


async def used(origin: str, url: str, events: Sequence[Observed], size: float) -> float:
    """Return the used share of the default budget in per cent, after the burst at its start."""
    async with worker(origin, url, RATE) as backfill, ClientSession() as session:

        async def requests() -> int:
            async with session.get(f"http://{origin}/requests") as answer:
                return int(await answer.json())

        before = await requests()
        running = asyncio.create_task(backfill.run(channels(events), Range()))
        # The server tells how many came when it is asked.
        while (first := await requests()) <= before + BURST and not running.done():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        began = time.perf_counter()
        await asyncio.sleep(max(LEAST_WINDOW_SECONDS, WINDOW_SECONDS * size))
        rate = (await requests() - first) / (time.perf_counter() - began)
        if running.done():
            running.result()
        async with asyncio.timeout(APPLY_WAIT_SECONDS):
            while not await found(url, events):  # noqa: ASYNC110 - whatever was asked for is on its way
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait([running])
        out, all_there_is = await found(url, events), truth(events)
        expect((True, True), (bool(out), out <= all_there_is), "backfill within its budget")
    async with connect(url) as redis:
        expect(0, await broken_counts(redis, events), "backfill within its budget")
    return 100 * rate / RATE


def channels(events: Sequence[Observed]) -> list[str]:
    """Return the channels there are events of."""
    return sorted({event.identity.channel for event in events})


async def one_round(size: float) -> Mapping[str, float]:
    """Let each replay the same history."""
    count = max(10 * PAGE_SIZE, round(ACTIONS * size))
    in_ten = even(count, [f"channel-{number}" for number in range(CHANNELS)])
    in_one = even(round(IN_ONE * count), ["channel"])
    latency = LATENCY_SECONDS * min(1, 10 * size)
    server = RedisServer()
    try:
        async with pubnub(listed([*in_ten, *in_one]), latency) as origin:
            gc.freeze()  # what this benchmark holds is no part of a backfill
            ten = await ours(origin, server.url, in_ten)
            sdk_ten = await theirs(origin, server.url, in_ten)
            one = await ours(origin, server.url, in_one)
            sdk_one = await theirs(origin, server.url, in_one)
            return {
                "ten": ten.rate,
                "sdk_ten": sdk_ten.rate,
                "ten_cpu": ten.cpu,
                "sdk_ten_cpu": sdk_ten.cpu,
                "one": one.rate,
                "sdk_one": sdk_one.rate,
                "used_ten": await used(origin, server.url, in_ten, size),
                "used_one": await used(origin, server.url, in_one, size),
            }
    finally:
        gc.unfreeze()
        server.stop()


BENCHMARK: Final = Benchmark(
    "backfill",
    "100,000 actions, as many in each of ten channels, or 40,000 in one; each request is answered "
    "after 50 ms. The SDK reads all channels side by side (`asyncio.gather`), each page by page, "
    "and counts a page with one script call. It writes no journal, no index and no progress, so a "
    "kill begins it anew; it counts what was removed meanwhile, and would miss ties at a page's "
    "edge.",
    (
        Figure("ten", "ours, ten channels", "actions/s"),
        Figure("sdk_ten", "the SDK side by side, ten channels", "actions/s"),
        Ratio("ten", "sdk_ten", "ten channels, ours / the SDK side by side", at_least=1),
        Figure("ten_cpu", "ours, ten channels: processor, without Redis", "µs an action"),
        Figure("sdk_ten_cpu", "the SDK, ten channels: processor, without Redis", "µs an action"),
        Ratio("ten_cpu", "sdk_ten_cpu", "processor, ours / the SDK"),
        Figure("one", "ours, one channel", "actions/s"),
        Figure("sdk_one", "the SDK, one channel", "actions/s"),
        Ratio("one", "sdk_one", "one channel, ours / the SDK", at_least=1),
        Figure("used_ten", "of 20 requests a second, ten channels", "%", at_least=95),
        Figure("used_one", "of 20 requests a second, one channel: page by page", "%"),
    ),
    one_round,
)
