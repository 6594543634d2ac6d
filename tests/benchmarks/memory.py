"""What an action costs in Redis's memory, few to a message and many, beside what a team would keep instead."""

import asyncio
import random
import statistics
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any, Final, cast

from redis.asyncio import Redis

from tests.benchmarks.harness import Benchmark, Figure, Line, Ratio, expect
from tests.configured_server import DEPLOYED, ConfiguredServer, programs, version
from worker.domain.action import Added, Identity, Origin
from worker.store.batch import batched
from worker.store.connection import connect
from worker.store.keys import Keys
from worker.store.store import Store

ACTIONS: Final = 1_000_000
SHAPES: Final = {10: 120, 25_000: 130}
"""Actions of a message → bytes that each may cost."""
CHANNELS: Final = 20
BATCH: Final = 500
VALUES: Final = ("👍", "❤️", "😂", "🎉", "🚀")
FIRST: Final = 17_600_000_000_000_000
APPLY_WAIT_SECONDS: Final = 60
LOOKED_AT: Final = 200
"""Messages whose keys are weighed, and whose counts are compared with the truth."""
PROGRAMS: Final = programs()
WEIGHED: Final[dict[float, dict[str, float]]] = {}
KEYS: Final = Keys()


def messages(actions: int, each: int) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """Yield channel, message timetoken and (value, user) of its reactions; nobody reacts twice."""
    chance = random.Random(each)
    for number in range(max(1, actions // each)):
        digits = (f"{chance.getrandbits(128):032x}" for _ in range(min(each, actions)))
        users = [
            (VALUES[int(it[0], 16) % 5], f"{it[:8]}-{it[8:12]}-{it[12:16]}-{it[16:20]}-{it[20:]}")
            for it in digits
        ]
        yield f"channel-{number % CHANNELS:04d}", str(FIRST + number), users


async def ours(redis: Redis, actions: int, each: int) -> None:
    """Let the worker's own script write them: counts, actions, messages, journal."""
    store, waiting, number = Store(redis, KEYS), dict[str, list[Added]](), 0
    for channel, message, users in messages(actions, each):
        batch = waiting.setdefault(channel, [])
        for value, user in users:
            number += 1
            at = str(FIRST + 10_000_000_000 + 2 * number)
            batch.append(Added(Identity(channel, message, "reaction", value, user), at, at))
        while len(batch) >= BATCH:
            await store.apply_all([(channel, batch[:BATCH])], Origin.LIVE)
            del batch[:BATCH]
    for channel, batch in waiting.items():
        if batch:
            await store.apply_all([(channel, batch)], Origin.LIVE)


async def peer(redis: Redis, actions: int, each: int) -> None:
    """Keep a set of users for each value, and a hash of counts: who, but not when, and no index of messages."""
    pipe = cast("Any", redis).pipeline(transaction=False)
    for channel, message, users in messages(actions, each):
        for value in VALUES:
            for some in batched([user for of, user in users if of == value], BATCH):
                pipe.sadd(f"peer:{{{channel}}}:users:{message}:{value}", *some)
                pipe.hincrby(f"peer:{{{channel}}}:counts:{message}", f"reaction:{value}", len(some))
        if len(pipe) >= BATCH:
            await pipe.execute()
    await pipe.execute()


async def used(redis: Any) -> int:
    """Return Redis's used memory without its clients', once nothing is being freed and it has stopped moving."""
    before = -1
    async with asyncio.timeout(APPLY_WAIT_SECONDS):
        while True:
            memory = await redis.info("memory")
            now = memory["used_memory"] - memory["mem_clients_normal"]
            if now == before and not memory["lazyfree_pending_objects"]:
                return int(now)
            before = now
            await asyncio.sleep(0.01)


@asynccontextmanager
async def server(name: str, *, deployed: bool) -> AsyncIterator[Any]:
    """Yield a client of a server: as it comes, or with our configuration; what it logs on disk is not asked here."""
    options = {"appendonly": "no", "save": ""}
    with ConfiguredServer(PROGRAMS[name], DEPLOYED if deployed else None, **options) as started:
        async with connect(started.url) as redis:
            await Store(redis, KEYS).apply_all(
                [("warm", [Added(Identity("warm", "1", "a", "b", "c"), "1", "1")])], Origin.LIVE
            )
            yield redis


async def weighed(redis: Any, actions: int, each: int) -> dict[str, float]:
    """Return the bytes an action takes, without the journal and in the journal; and those of a message's keys."""
    await redis.flushall()
    before = await used(redis)
    await ours(redis, actions, each)
    whole = await used(redis)
    await check(redis, actions, each)
    looked_at = list(islice(messages(actions, each), LOOKED_AT))
    values = {}
    for kind, key in (("actions", KEYS.actions), ("counts", KEYS.counts)):
        pipe = redis.pipeline(transaction=False)
        for channel, message, _ in looked_at:
            pipe.memory_usage(key(channel, message), samples=0)
        values[f"{kind}_key"] = statistics.mean(await pipe.execute())
    index = KEYS.messages("channel-0000")
    values["index_key"] = await redis.memory_usage(index, samples=0) / await redis.zcard(index)
    await redis.delete(*(KEYS.journal(f"channel-{number:04d}") for number in range(CHANNELS)))
    without_journal = await used(redis)
    return values | {
        "ours": (without_journal - before) / actions,
        "journal": (whole - without_journal) / actions,
    }


async def check(redis: Any, actions: int, each: int) -> None:
    """Expect every message looked at to have its actions and its counts."""
    looked_at = list(islice(messages(actions, each), LOOKED_AT))
    pipe = redis.pipeline(transaction=False)
    for channel, message, _ in looked_at:
        pipe.hlen(KEYS.actions(channel, message)).hgetall(KEYS.counts(channel, message))
    answers = iter(await pipe.execute())
    for _, _, users in looked_at:
        expect(len(users), next(answers), "the actions")
        counts = Counter(f"reaction:{value}" for value, _ in users)
        expect({field: str(count) for field, count in counts.items()}, next(answers), "the counts")


async def weighed_peer(redis: Any, actions: int, each: int) -> float:
    """Return the bytes an action takes the peer."""
    await redis.flushall()
    before = await used(redis)
    await peer(redis, actions, each)
    return (await used(redis) - before) / actions


async def one_round(size: float) -> dict[str, float]:
    """Fill and weigh every server in every shape; what was weighed once is not weighed again, for it is the same."""
    if size in WEIGHED:
        return WEIGHED[size]
    values: dict[str, float] = {}
    actions = round(ACTIONS * size)
    for name in PROGRAMS:
        for deployed in (False, True):
            async with server(name, deployed=deployed) as redis:
                for each in SHAPES:
                    mark = f"{name}_{each}" + "_deployed" * deployed
                    found = await weighed(redis, actions, each)
                    values |= {f"{mark}_{what}": value for what, value in found.items()}
                    if not deployed:
                        values[f"{mark}_peer"] = await weighed_peer(redis, actions, each)
    WEIGHED[size] = values
    return values


def lines() -> Iterator[Line]:
    """Yield what is said of each server and shape."""
    versions = {name: f"{name} {version(program)}" for name, program in PROGRAMS.items()}
    for name in PROGRAMS:
        for each, at_most in SHAPES.items():
            mark, where = f"{name}_{each}", f"{versions[name]}, {each:,} a message"
            yield Figure(f"{mark}_ours", f"{where}: an action", "bytes", at_most=at_most)
            yield Figure(
                f"{mark}_deployed_ours",
                f"{where}: an action, deploy/redis.conf",
                "bytes",
                at_most=at_most,
            )
            yield Figure(f"{mark}_peer", f"{where}: a set for each value", "bytes")
            yield Ratio(f"{mark}_ours", f"{mark}_peer", f"{where}: ours / a set for each value")
            yield Figure(f"{mark}_journal", f"{where}: a change in the journal", "bytes")
            yield Figure(f"{mark}_actions_key", f"{where}: its `actions` key", "bytes")
            yield Figure(f"{mark}_counts_key", f"{where}: its `counts` key", "bytes")
            yield Figure(f"{mark}_index_key", f"{where}: its place in `messages`", "bytes")


SKIPPED: Final = (
    ""
    if "Redis" in PROGRAMS
    else " Redis is left out: this machine has no redis-server in its PATH."
)

BENCHMARK: Final = Benchmark(
    name="memory",
    work=(
        f"Keep {ACTIONS:,} live actions of users with UUIDs, ten a message and 25,000 a message, written by the "
        "worker's own script: what used_memory grows by, an action, without the journal, which is trimmed by time and "
        "weighed apart. No round differs from another, so the first stands for all. The peer keeps a set of users for "
        "each value and a hash of counts; it knows not when, so it can tell no late removal from a new one, and it has "
        "no index of messages." + SKIPPED
    ),
    lines=tuple(lines()),
    round=one_round,
)
