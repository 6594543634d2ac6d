"""An action's bytes in Redis, few and many to a message, beside a team's own way."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any, Final, cast

from redis.asyncio import Redis

from tests.benchmarks.harness import Benchmark, Figure, Line, Ratio, expect
from tests.configured_server import ConfiguredServer, programs, version
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
"""Messages whose actions and counts are compared with the truth."""
PROGRAMS: Final = programs()
WEIGHED: Final[dict[float, dict[str, float]]] = {}
KEYS: Final = Keys()


def messages(actions: int, to_a_message: int) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """Yield channel, message timetoken and (value, user) of its reactions; nobody reacts twice."""
    chance = random.Random(to_a_message)
    for number in range(max(1, actions // to_a_message)):
        digits = (f"{chance.getrandbits(128):032x}" for _ in range(min(to_a_message, actions)))
        users = [
            (VALUES[int(it[0], 16) % 5], f"{it[:8]}-{it[8:12]}-{it[12:16]}-{it[16:20]}-{it[20:]}")
            for it in digits
        ]
        yield f"channel-{number % CHANNELS:04d}", str(FIRST + number), users


async def ours(redis: Redis, actions: int, to_a_message: int) -> None:
    """Let the worker's own script write them: counts, actions, messages, journal."""
    store, waiting, number = Store(redis, KEYS), dict[str, list[Added]](), 0
    for channel, message, users in messages(actions, to_a_message):
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


async def peer(redis: Redis, actions: int, to_a_message: int) -> None:
    """Keep a set of users for each value, and a hash of counts: no times, no index."""
    pipe = cast("Any", redis).pipeline(transaction=False)
    for channel, message, users in messages(actions, to_a_message):
        for value in VALUES:
            for part in batched([user for of, user in users if of == value], BATCH):
                pipe.sadd(f"peer:{{{channel}}}:users:{message}:{value}", *part)
                pipe.hincrby(f"peer:{{{channel}}}:counts:{message}", f"reaction:{value}", len(part))
        if len(pipe) >= BATCH:
            await pipe.execute()
    await pipe.execute()


async def used(redis: Any) -> int:
    """Return Redis's used memory without that of clients, once it has stopped moving."""
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
async def server(name: str) -> AsyncIterator[Any]:
    """Yield a client of a server with its own configuration; nothing goes to disk."""
    with ConfiguredServer(PROGRAMS[name], appendonly="no", save="") as started:
        async with connect(started.url) as redis:
            await Store(redis, KEYS).apply_all(
                [("warm", [Added(Identity("warm", "1", "a", "b", "c"), "1", "1")])], Origin.LIVE
            )
            yield redis


async def weighed(redis: Any, actions: int, to_a_message: int) -> dict[str, float]:
    """Return the bytes of an action, without the journal and in the journal."""
    await redis.flushall()
    before = await used(redis)
    await ours(redis, actions, to_a_message)
    whole = await used(redis)
    await check(redis, actions, to_a_message)
    await redis.delete(*(KEYS.journal(f"channel-{number:04d}") for number in range(CHANNELS)))
    without_journal = await used(redis)
    return {
        "ours": (without_journal - before) / actions,
        "journal": (whole - without_journal) / actions,
    }


async def check(redis: Any, actions: int, to_a_message: int) -> None:
    """Expect every message looked at to have its actions and its counts."""
    looked_at = list(islice(messages(actions, to_a_message), LOOKED_AT))
    pipe = redis.pipeline(transaction=False)
    for channel, message, _ in looked_at:
        pipe.hlen(KEYS.actions(channel, message)).hgetall(KEYS.counts(channel, message))
    answers = iter(await pipe.execute())
    for _, _, users in looked_at:
        expect(len(users), next(answers), "the actions")
        counts = Counter(f"reaction:{value}" for value, _ in users)
        expect({field: str(count) for field, count in counts.items()}, next(answers), "the counts")


async def weighed_peer(redis: Any, actions: int, to_a_message: int) -> float:
    """Return the bytes an action takes the peer."""
    await redis.flushall()
    before = await used(redis)
    await peer(redis, actions, to_a_message)
    return (await used(redis) - before) / actions


async def one_round(size: float) -> dict[str, float]:
    """Fill and weigh every server in every shape, once: rounds do not differ."""
    if size in WEIGHED:
        return WEIGHED[size]
    values: dict[str, float] = {}
    actions = round(ACTIONS * size)
    for name in PROGRAMS:
        async with server(name) as redis:
            for to_a_message in SHAPES:
                mark = f"{name}_{to_a_message}"
                weights = await weighed(redis, actions, to_a_message)
                values |= {f"{mark}_{what}": weight for what, weight in weights.items()}
                values[f"{mark}_peer"] = await weighed_peer(redis, actions, to_a_message)
    WEIGHED[size] = values
    return values


def lines() -> Iterator[Line]:
    """Yield what is said of each server and shape."""
    versions = {name: f"{name} {version(program)}" for name, program in PROGRAMS.items()}
    for name in PROGRAMS:
        for to_a_message, at_most in SHAPES.items():
            mark, where = f"{name}_{to_a_message}", f"{versions[name]}, {to_a_message:,} a message"
            yield Figure(f"{mark}_ours", f"{where}: an action", "bytes", at_most=at_most)
            yield Figure(f"{mark}_peer", f"{where}: a set for each value", "bytes")
            yield Ratio(f"{mark}_ours", f"{mark}_peer", f"{where}: ours / a set for each value")
            yield Figure(f"{mark}_journal", f"{where}: a change in the journal", "bytes")


SKIPPED: Final = (
    ""
    if "Redis" in PROGRAMS
    else " Redis is left out: this machine has no redis-server in its PATH."
)

BENCHMARK: Final = Benchmark(
    name="memory",
    work=(
        f"Keep {ACTIONS:,} live actions of users with UUIDs, ten a message and 25,000 a message, "
        "written by the worker's own script: the growth of used_memory an action, without the "
        "journal, which is trimmed by time and weighed apart. Rounds do not differ, so there is "
        "one. The peer keeps a set of users for each value and a hash of counts; without times it "
        "cannot tell a late removal from a new one, and it has no index of messages." + SKIPPED
    ),
    lines=tuple(lines()),
    round=one_round,
)
