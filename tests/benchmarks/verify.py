"""What `tally verify` and a round cost over thousands of channels, beside a team's own check."""

import asyncio
import gc
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast

from aiohttp import ClientSession
from pubnub.endpoints.message_actions.get_message_actions import GetMessageActions
from pubnub.pubnub_asyncio import PubNubAsyncio
from redis.asyncio import Redis

from reaction_tally.keys import Keys
from tests.benchmarks.answering import FIRST
from tests.benchmarks.harness import Benchmark, Figure, Line, Ratio, expect
from tests.benchmarks.listing import PAGE_SIZE, listed, pubnub
from tests.benchmarks.load import VALUES
from tests.emulator.clients import asyncio_sdk
from tests.redis_server import RedisServer
from worker.domain.action import Added, Identity, Origin
from worker.service.commands import run_verify
from worker.service.parts import open_parts
from worker.service.worker import FollowedNames, Repairs
from worker.settings import Settings
from worker.source.names import Names
from worker.store.connection import connect
from worker.store.store import Store
from worker.store.tables import Tables

CHANNELS: Final = 5_000
MESSAGES: Final = 2
ACTIONS: Final = 10
"""Of each message."""
RATE: Final = 20
"""Requests a second: the default of TALLY_HISTORY_RATE."""
LIFTED: Final = 1e6
SIDE_BY_SIDE: Final = 40
"""Channels that the peer reads at once."""
FILLED_AT_ONCE: Final = 10
KEYS: Final = Keys()

Tallies = Counter[tuple[str, str]]
"""(message timetoken, field of counts) → count."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a pass over all channels costs."""

    requests: int
    seconds: float
    cpu: float
    """Seconds of this process's processor; PubNub and Redis have their own."""

    def figures(self, name: str, channels: int) -> dict[str, float]:
        """Return them by the keys of the benchmark's lines."""
        return {
            f"{name}_requests": self.requests / channels,
            f"{name}_seconds": self.seconds,
            f"{name}_cpu": 1000 * self.cpu / channels,
            f"{name}_default": self.requests / RATE / 60,
        }


async def costing(origin: str, work: Callable[[], Awaitable[None]]) -> Cost:
    """Return what the work costs."""
    before = await requests(origin)
    began, cpu_began = time.perf_counter(), time.process_time()
    await work()
    seconds = time.perf_counter() - began
    cpu = time.process_time() - cpu_began
    return Cost(await requests(origin) - before, seconds, cpu)


async def requests(origin: str) -> int:
    """Return how many lists PubNub was asked for."""
    async with ClientSession() as session, session.get(f"http://{origin}/requests") as answer:
        return int(await answer.json())


def actions_of(channels: int) -> Iterator[tuple[str, list[Added]]]:
    """Yield each channel with its actions, in order."""
    chance = random.Random(1)
    at = FIRST
    for number in range(channels):
        channel, actions = f"channel-{number:05d}", list[Added]()
        for place in range(MESSAGES * ACTIONS):
            at += 2
            message = str(FIRST - 1 - place % MESSAGES)
            value, uuid = chance.choice(VALUES), f"{chance.getrandbits(144):036x}"
            identity = Identity(channel, message, "reaction", value, uuid)
            actions.append(Added(identity, str(at), str(at)))
        yield channel, actions


async def fill(redis: Redis, actions: Mapping[str, Sequence[Added]]) -> None:
    """Let Redis have what PubNub lists."""
    store, channels = Store(redis, KEYS), list(actions)
    for start in range(0, len(channels), FILLED_AT_ONCE):
        some = channels[start : start + FILLED_AT_ONCE]
        await store.apply_all([(channel, actions[channel]) for channel in some], Origin.BACKFILL)
    await Tables(redis, KEYS).channels.add(channels)


async def verify(settings: Settings, actions: int) -> None:
    """Compare everything; this is the whole of the command but for its start and its table."""
    report = await run_verify(settings, [], 1, None)
    compared = report.is_exact, report.entries
    expect((True, actions), compared, "tally verify")


async def peer(origin: str, redis: Redis, channels: Sequence[str]) -> None:
    """Compare the counts of each channel with the SDK's list."""
    room = asyncio.Semaphore(SIDE_BY_SIDE)
    async with asyncio_sdk(origin) as sdk:

        async def compare(channel: str) -> bool:
            async with room:
                return await is_equal(sdk, redis, channel)

        equal = await asyncio.gather(*map(compare, channels))
    expect(True, all(equal), "the SDK's check")


async def is_equal(sdk: PubNubAsyncio, redis: Redis, channel: str) -> bool:
    """Tell whether Redis has the counts that are listed, for the messages that are listed."""
    tallies = await listed_tallies(sdk, channel)
    messages = sorted({message for message, _ in tallies})
    pipe = cast("Any", redis).pipeline(transaction=False)
    for message in messages:
        pipe.hgetall(KEYS.counts(channel, message))
    counts: Tallies = Counter()
    for message, fields in zip(messages, await pipe.execute(), strict=True):
        counts.update({(message, field): int(count) for field, count in fields.items()})
    return counts == tallies


async def listed_tallies(sdk: PubNubAsyncio, channel: str) -> Tallies:
    """Count a channel's list; a page that is not full is taken for the last one."""
    tallies: Tallies = Counter()
    start = None
    while True:
        request = GetMessageActions(sdk).channel(channel)
        answer = await (request.start(start) if start else request).future()
        expect(False, answer.is_error(), "the SDK's check")
        actions = answer.result.actions
        tallies.update((item.message_timetoken, f"{item.type}:{item.value}") for item in actions)
        if len(actions) < PAGE_SIZE:
            return tallies
        start = actions[0].action_timetoken


async def one_round(size: float) -> Mapping[str, float]:
    """Let each pass over the same channels once."""
    channels = max(10, round(CHANNELS * size))
    actions = dict(actions_of(channels))
    events = [action for own in actions.values() for action in own]
    server = RedisServer()
    try:
        async with pubnub(listed(events), 0) as origin, connect(server.url) as redis:
            await fill(redis, actions)
            gc.freeze()  # what this benchmark holds is no part of a pass
            settings = configured(origin, server.url)
            costs = {
                "verify": await costing(origin, partial(verify, settings, len(events))),
                "peer": await costing(origin, partial(peer, origin, redis, list(actions))),
                **await rounds(settings, origin, channels),
            }
            expect(channels, await cast("Any", redis).zcard(KEYS.proven_full), "the rounds")
    finally:
        gc.unfreeze()
        server.stop()
    values: dict[str, float] = {}
    for name, cost in costs.items():
        values |= cost.figures(name, channels)
    return values


def configured(origin: str, url: str) -> Settings:
    """Return the settings of a worker whose request rate has no limit."""
    given = {
        "PUBNUB_SUBSCRIBE_KEY": "demo",
        "PUBNUB_ORIGIN": origin,
        "PUBNUB_TLS": "false",
        "REDIS_URL": url,
    }
    return Settings.model_validate(given).model_copy(update={"history_rate": LIFTED})


async def rounds(settings: Settings, origin: str, channels: int) -> dict[str, Cost]:
    """Make a round in which every channel is due, and one in which none is."""
    async with open_parts(settings) as parts:
        made = Repairs(parts, FollowedNames(Names(), settings)).rounds
        costs = {name: await costing(origin, made.once) for name in ("round", "none")}
    expect(0, costs["none"].requests, "a round in which nothing is due")
    expect(channels, made.load and made.load.channels, "the rounds")
    return costs


PASSES: Final = {
    "verify": "tally verify",
    "round": "a round, all due",
    "peer": "a check with the SDK",
}


def lines() -> Iterator[Line]:
    """Yield what is said of each pass."""
    for key, words in PASSES.items():
        yield Figure(f"{key}_requests", f"{words}: requests a channel", "")
        yield Figure(f"{key}_seconds", f"{words}: all channels, no limit of requests", "s")
        yield Figure(f"{key}_cpu", f"{words}: processor, without Redis", "ms a channel")
        yield Figure(f"{key}_default", f"{words}: at 20 requests a second, computed", "minutes")
    yield Figure("none_seconds", "a round in which nothing is due", "s")
    for key in ("verify", "round"):
        words = f"{PASSES[key]} / a check with the SDK"
        yield Ratio(f"{key}_requests", "peer_requests", f"requests, {words}")
        yield Ratio(f"{key}_cpu", "peer_cpu", f"processor, {words}")


BENCHMARK: Final = Benchmark(
    "verify",
    "5,000 channels with two messages of ten actions each, all right in Redis. PubNub answers at "
    "once, and requests have no limit. In the round no channel was ever proven, so each one has a "
    "look at everything; nothing needs a repair. Log lines are left out. The peer asks the SDK for "
    "40 channels side by side, counts, and compares with HGETALL. It believes a short page to be "
    "the last one, which PubNub does not promise. It looks once, so an event that is on its way is "
    "a difference; it compares no users, and finds no message that Redis alone has.",
    tuple(lines()),
    one_round,
)
