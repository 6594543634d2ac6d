"""How fast history is replayed, beside the SDK paging through it and counting in memory."""

import asyncio
import gc
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import cycle
from typing import Final

from aiohttp import ClientSession
from pubnub.endpoints.message_actions.get_message_actions import GetMessageActions
from pubnub.pubnub_asyncio import PubNubAsyncio

from tests.benchmarks.harness import Benchmark, Figure, Ratio, expect
from tests.benchmarks.listing import NOW, PAGE_SIZE, listed, pubnub
from tests.benchmarks.load import Counts, broken_counts, found, history, truth
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
from worker.store.keys import Keys
from worker.store.redis_retry import RedisRetry
from worker.store.store import Store
from worker.store.tables import Tables

ACTIONS: Final = 100_000
CHANNELS: Final = 10
LATENCY_SECONDS: Final = 0.05
RATE: Final = 20
"""Requests a second: the default of TALLY_HISTORY_RATE."""
LIFTED: Final = 1e6
WINDOW_SECONDS: Final = 15.0
LEAST_WINDOW_SECONDS: Final = 0.1
APPLY_WAIT_SECONDS: Final = 60


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


async def ours(origin: str, url: str, events: Sequence[Observed]) -> float:
    """Return actions a second, the request budget lifted."""
    async with worker(origin, url, LIFTED) as backfill:
        began = time.perf_counter()
        await backfill.run(channels(events), Range())
        seconds = time.perf_counter() - began
    expect(truth(events), await found(url, events), "backfill")
    return len(events) / seconds


async def theirs(origin: str, events: Sequence[Observed]) -> float:
    """Return actions a second of paging with the SDK, one page after the other."""
    counts: Counts = Counter()
    async with asyncio_sdk(origin) as sdk:
        began = time.perf_counter()
        for channel in channels(events):
            counts += await counted(sdk, channel)
        seconds = time.perf_counter() - began
    expect(truth(events), counts, "SDK")
    return len(events) / seconds


async def counted(sdk: PubNubAsyncio, channel: str) -> Counts:
    """Return the counts of a channel, page by page, as the SDK's documentation shows it."""
    counts: Counts = Counter()
    start = str(NOW)
    while True:
        answer = await GetMessageActions(sdk).channel(channel).start(start).future()
        expect(False, answer.is_error(), "SDK")
        actions = answer.result.actions
        if not actions:
            return counts
        counts.update((channel, item.message_timetoken, item.type, item.value) for item in actions)
        start = actions[0].action_timetoken


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
    in_one = even(count, ["channel"])
    server = RedisServer()
    try:
        async with pubnub(
            listed([*in_ten, *in_one]), LATENCY_SECONDS * min(1, 10 * size)
        ) as origin:
            gc.freeze()  # what this benchmark holds is no part of a backfill
            return {
                "ten": await ours(origin, server.url, in_ten),
                "one": await ours(origin, server.url, in_one),
                "sdk": await theirs(origin, in_ten),
                "used_ten": await used(origin, server.url, in_ten, size),
                "used_one": await used(origin, server.url, in_one, size),
            }
    finally:
        gc.unfreeze()
        server.stop()


BENCHMARK: Final = Benchmark(
    "backfill",
    "100,000 actions, as many in each channel; each request is answered after 50 ms. The SDK asks "
    "for one page of 100 after the other, and counts in memory: it writes nothing, saves no "
    "progress and would miss ties at a page's edge.",
    (
        Figure("ten", "ours, ten channels", "actions/s"),
        Figure("one", "ours, one channel", "actions/s"),
        Figure("sdk", "the SDK, ten channels", "actions/s"),
        Ratio("ten", "sdk", "ten channels, ours / the SDK", at_least=8),
        Ratio("one", "sdk", "one channel, ours / the SDK with ten: as many pages"),
        Figure("used_ten", "of 20 requests a second, ten channels", "%", at_least=95),
        Figure(
            "used_one",
            "of 20 requests a second, one channel: one page at a time",
            "%",
        ),
    ),
    one_round,
)
