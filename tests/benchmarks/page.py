"""A chat screen with counts, what is mine, and names: one script, two steps, redis-py by hand."""

import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final, cast

from redis.asyncio import Redis

from reaction_tally import AsyncTallyReader, Page
from reaction_tally.keys import Keys, action_prefix
from tests.benchmarks.harness import Benchmark, Figure, Line, Ratio, expect
from tests.benchmarks.latency import line
from tests.benchmarks.read import ACTIONS, MESSAGES, VALUES, actions
from tests.claimed import claim
from tests.redis_server import RedisServer
from worker.domain.action import Added, Identity, Origin
from worker.store.batch import MAX_BATCH, batched
from worker.store.connection import connect
from worker.store.store import Store

ROOM: Final = "room"
ME: Final = f"user-{3:031d}"
NAMES: Final = 3
LARGE: Final = MESSAGES[50]
LARGE_ACTIONS: Final = 25_000
LATENCY_SECONDS: Final = 0.001
TIMES: Final = 100
USER: Final = "steps"
PERMITTED: Final = ("+@read", "+multi", "+exec", "~tally:*")

Mine = Mapping[str, Mapping[str, tuple[int, bool]]]
"""message timetoken → value → count, and whether it is mine."""
Read = Callable[[], Awaitable[Mine]]


@dataclass(frozen=True, slots=True)
class Way:
    """A way to read the screen."""

    key: str
    what: str
    most_trips: int


WAYS: Final = (
    Way("script", "page", 1),
    Way("names", f"page with {NAMES} names", 1),
    Way("steps", "page without scripts", 3),
    Way("by_hand", "redis-py in two steps, no names", 2),
)


def crowd(count: int) -> Iterator[Added]:
    """Yield so many reactions to one message."""
    for number in range(count):
        at = str(int(MESSAGES[-1]) + 1_000_000 + number)
        value = VALUES[number % len(VALUES)]
        yield Added(Identity(ROOM, LARGE, "reaction", value, f"guest-{number:030d}"), at, at)


def simplified(page: Page) -> Mine:
    """Return what all ways know."""
    return {
        timetoken: {it.value: (it.count, it.mine) for it in message.reactions}
        for timetoken, message in page.messages.items()
    }


async def by_hand(redis: Any, messages: Sequence[str] = MESSAGES, me: str = ME) -> Mine:
    """Read with redis-py alone: counts, then whether each is mine."""
    keys = Keys()
    pipe = redis.pipeline(transaction=False)
    pipe.get(keys.head(ROOM))
    pipe.exists(keys.owed(ROOM))
    for message in messages:
        pipe.hgetall(keys.counts(ROOM, message))
    _, _, *hashes = await pipe.execute()
    pipe = redis.pipeline(transaction=False)
    for message, counts in zip(messages, hashes, strict=True):
        fields = [action_prefix(field) + me for field in counts]
        pipe.hmget(keys.actions(ROOM, message), fields)
    own = await pipe.execute()
    return {
        message: {
            field.partition(":")[2]: (int(count), at is not None)
            for (field, count), at in zip(counts.items(), times, strict=True)
        }
        for message, counts, times in zip(messages, hashes, own, strict=True)
    }


async def prepare(redis: Redis, added: Sequence[Added]) -> None:
    """Count these reactions, and make a user who may run no script."""
    await claim(redis)
    store = Store(redis, Keys())
    for part in batched(added, MAX_BATCH):
        await store.apply_all([(ROOM, part)], Origin.LIVE)
    rules = ("reset", "on", ">secret", *PERMITTED)
    await cast("Any", redis).execute_command("ACL", "SETUSER", USER, *rules)


async def reads(stack: AsyncExitStack, port: int) -> dict[str, Read]:
    """Return the ways to read, each over a client of its own."""
    address = f"redis://127.0.0.1:{port}"
    limited = f"redis://{USER}:secret@127.0.0.1:{port}"
    reader = await stack.enter_async_context(AsyncTallyReader.from_url(address))
    steps = await stack.enter_async_context(AsyncTallyReader.from_url(limited))
    redis = await stack.enter_async_context(Redis.from_url(address, decode_responses=True))

    async def page(of: AsyncTallyReader, names: int) -> Mine:
        return simplified(await of.page(ROOM, MESSAGES, me=ME, names=names))

    return {
        "script": lambda: page(reader, 0),
        "names": lambda: page(reader, NAMES),
        "steps": lambda: page(steps, 0),
        "by_hand": lambda: by_hand(redis),
    }


async def spent(admin: Any, read: Read, times: int) -> dict[str, float]:
    """Return what a read costs: milliseconds, processor, bytes."""
    await read()
    before = await admin.info()
    began, ran = time.perf_counter(), time.process_time()
    for _ in range(times):
        await read()
    seconds, cpu = time.perf_counter() - began, time.process_time() - ran
    after = await admin.info()

    def grown(*names: str) -> float:
        return float(sum(after[name] - before[name] for name in names)) / times

    return {
        "ms": 1000 * seconds / times,
        "cpu": 1000 * cpu / times,
        "server": 1000 * grown("used_cpu_user", "used_cpu_sys"),
        "up": grown("total_net_input_bytes") / 1000,
        "down": grown("total_net_output_bytes") / 1000,
    }


async def one_round(size: float, large: int = 0) -> dict[str, float]:
    """Read the screen in every way, near and a millisecond away."""
    times = max(2, round(TIMES * size))
    added = [*actions(), *crowd(round(large * size))]
    values: dict[str, float] = {}
    with RedisServer() as server, line(server.port, LATENCY_SECONDS / 2) as far:
        async with connect(server.url) as admin, AsyncExitStack() as stack:
            await prepare(admin, added)
            near = await reads(stack, server.port)
            away = await reads(stack, far.port)
            truth = await near["by_hand"]()
            for key, read in near.items():
                expect(truth, await read(), key)
                costs = await spent(admin, read, times)
                values |= {f"{key}_{what}": cost for what, cost in costs.items()}
            for key, read in away.items():
                expect(truth, await read(), key)
                values[f"{key}_away"] = await median(read, times)
                before = far.round_trips()
                await read()
                values[f"{key}_trips"] = far.round_trips() - before
    return values


async def median(read: Read, times: int) -> float:
    """Return the median milliseconds of a read."""
    spent: list[float] = []
    for _ in range(times):
        began = time.perf_counter()
        await read()
        spent.append(1000 * (time.perf_counter() - began))
    return statistics.median(spent)


def lines(more_trips: int = 0) -> Iterator[Line]:
    """Yield the figures of each way, then ours beside redis-py.

    Names of a large message take so many trips more.
    """
    for way in WAYS:
        most = way.most_trips + (more_trips if way.key == "names" else 0)
        yield Figure(f"{way.key}_trips", f"{way.what}: round trips", "", at_most=most)
        yield Figure(f"{way.key}_ms", f"{way.what}: on loopback", "ms")
        yield Figure(f"{way.key}_away", f"{way.what}: a millisecond away", "ms")
        yield Figure(f"{way.key}_cpu", f"{way.what}: processor of the client", "ms")
        yield Figure(f"{way.key}_server", f"{way.what}: processor of Redis", "ms")
        yield Figure(f"{way.key}_up", f"{way.what}: sent", "kB")
        yield Figure(f"{way.key}_down", f"{way.what}: received", "kB")
    for what, sentence in (("away", "a millisecond away"), ("cpu", "processor of the client")):
        yield Ratio(
            f"script_{what}", f"by_hand_{what}", f"page / redis-py in two steps, {sentence}"
        )


async def large_round(size: float) -> dict[str, float]:
    """Read a screen with a very large message."""
    return await one_round(size, LARGE_ACTIONS)


PAGE: Final = Benchmark(
    name="page",
    work=(
        f"Read {len(MESSAGES)} messages with {len(VALUES)} values and {ACTIONS // len(MESSAGES)} "
        "actions each: counts, what is mine, position, doubt. The peer is redis-py by hand; what "
        "it reads is not of one instant."
    ),
    lines=tuple(lines()),
    round=one_round,
)
PAGE_LARGE: Final = Benchmark(
    name="page-large",
    work=f"The same, where one of the messages has {LARGE_ACTIONS:,} actions more.",
    lines=tuple(lines(more_trips=1)),
    round=large_round,
)
