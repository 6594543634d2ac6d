"""An action's bytes in Redis, few and many to a message, beside a team's own way."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, cast

from redis.asyncio import Redis

from reaction_tally.keys import Keys
from tests.benchmarks.harness import Benchmark, Figure, Line, Ratio, expect
from tests.configured_server import ConfiguredServer, programs, version
from worker.domain.action import Added, Identity, Observed, Origin, Removed
from worker.store.batch import MAX_BATCH, batched
from worker.store.connection import connect
from worker.store.store import Store

ACTIONS: Final = 1_000_000
SHAPES: Final = {2: 230, 10: 120, 200: 130, 25_000: 130}
"""Actions of a message → bytes that each may cost in counts and actions."""
CHANNELS: Final = 20
GONE: Final = 3 / 14
"""Removed reactions for each live one: of 20 events 17 are additions, 3 removals."""
ALONE: Final = 0.02
"""The part of the actions that is written event by event."""
BATCH: Final = MAX_BATCH
VALUES: Final = ("👍", "❤️", "😂", "🎉", "🚀")
FIRST: Final = 17_600_000_000_000_000
APPLY_WAIT_SECONDS: Final = 60
LOOKED_AT: Final = 200
"""Messages whose actions and counts are compared with the truth."""
PROGRAMS: Final = programs()
WEIGHED: Final[dict[float, dict[str, float]]] = {}
KEYS: Final = Keys()


@dataclass(frozen=True, slots=True)
class Message:
    """A message's reactions: those that stay, and those that are removed again."""

    channel: str
    timetoken: str
    live: list[tuple[str, str]]
    """Value and user; nobody reacts twice."""
    gone: list[tuple[str, str]]


def messages(actions: int, to_a_message: int) -> Iterator[Message]:
    """Yield messages with so many live reactions, and as many gone ones as a day has."""
    chance = random.Random(to_a_message)
    live = min(to_a_message, actions)
    for number in range(max(1, actions // to_a_message)):
        gone = int(live * GONE + chance.random())
        digits = (f"{chance.getrandbits(128):032x}" for _ in range(live + gone))
        users = [
            (VALUES[int(it[0], 16) % 5], f"{it[:8]}-{it[8:12]}-{it[12:16]}-{it[16:20]}-{it[20:]}")
            for it in digits
        ]
        channel = f"channel-{number % CHANNELS:04d}"
        yield Message(channel, str(FIRST + number), users[:live], users[live:])


def events_of(message: Message, number: int) -> Iterator[Observed]:
    """Yield the additions of a message, then its removals; timetokens from ``number``."""
    for value, user in [*message.live, *message.gone]:
        at = str(FIRST + 10_000_000_000 + 2 * number)
        number += 1
        identity = Identity(message.channel, message.timetoken, "reaction", value, user)
        yield Added(identity, at, at)
    for value, user in message.gone:
        identity = Identity(message.channel, message.timetoken, "reaction", value, user)
        yield Removed(identity, at, at)


async def ours(redis: Redis, actions: int, to_a_message: int, batch: int = BATCH) -> None:
    """Let the worker's own script write them: counts, actions, tombstones, index, journal."""
    store, waiting, number = Store(redis, KEYS), dict[str, list[Observed]](), 0
    for message in messages(actions, to_a_message):
        events = waiting.setdefault(message.channel, [])
        events += events_of(message, number)
        number += len(message.live) + len(message.gone)
        while len(events) >= batch:
            await store.apply_all([(message.channel, events[:batch])], Origin.LIVE)
            del events[:batch]
    for channel, events in waiting.items():
        if events:
            await store.apply_all([(channel, events)], Origin.LIVE)


async def peer(redis: Redis, actions: int, to_a_message: int) -> None:
    """Keep a set of users for each value, and a hash of counts: no times, no index."""
    pipe = cast("Any", redis).pipeline(transaction=False)
    for message in messages(actions, to_a_message):
        for users, change, sign in (
            ([*message.live, *message.gone], pipe.sadd, 1),
            (message.gone, pipe.srem, -1),
        ):
            for value, part in by_value(users):
                place = f"peer:{{{message.channel}}}"
                change(f"{place}:users:{message.timetoken}:{value}", *part)
                counts = f"{place}:counts:{message.timetoken}"
                pipe.hincrby(counts, f"reaction:{value}", sign * len(part))
        if len(pipe) >= BATCH:
            await pipe.execute()
    await pipe.execute()


def by_value(users: Sequence[tuple[str, str]]) -> Iterator[tuple[str, list[str]]]:
    """Yield each value with some of its users."""
    for value in VALUES:
        for part in batched([user for of, user in users if of == value], BATCH):
            yield value, list(part)


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
    """Return the bytes of a live action: all together, and of each part."""
    await redis.flushall()
    before = await used(redis)
    await ours(redis, actions, to_a_message)
    whole = await used(redis)
    await check(redis, actions, to_a_message)
    weights, left = {"whole": (whole - before) / actions}, whole
    for part in ("journal", "index", "tombstones", "who"):
        await delete(redis, part, actions, to_a_message)
        now = await used(redis)
        weights[part] = (left - now) / actions
        left = now
    return weights | {"counts": (left - before) / actions}


async def delete(redis: Any, part: str, actions: int, to_a_message: int) -> None:
    """Delete one part of what is kept."""
    names = [f"channel-{number:04d}" for number in range(CHANNELS)]
    if part == "journal":
        await redis.delete(*map(KEYS.journal, names))
    elif part == "index":
        await redis.delete(*map(KEYS.messages, names))
    else:
        every = messages(actions, to_a_message)
        keys = [key for message in every for key in keys_of(message, part)]
        for some in batched(keys, BATCH):
            await redis.delete(*some)


def keys_of(message: Message, part: str) -> list[str]:
    """Return the keys of a message that are one part of what is kept."""
    place = message.channel, message.timetoken
    if part == "tombstones":
        return [KEYS.removed(*place)]
    return [KEYS.who(*place, f"reaction:{value}") for value in VALUES]


async def check(redis: Any, actions: int, to_a_message: int) -> None:
    """Expect every message looked at to have its actions, tombstones and counts."""
    looked_at = list(islice(messages(actions, to_a_message), LOOKED_AT))
    pipe = redis.pipeline(transaction=False)
    for message in looked_at:
        place = message.channel, message.timetoken
        pipe.hlen(KEYS.actions(*place)).hlen(KEYS.removed(*place)).hgetall(KEYS.counts(*place))
    answers = iter(await pipe.execute())
    for message in looked_at:
        expect(len(message.live), next(answers), "the actions")
        expect(len(message.gone), next(answers), "the tombstones")
        expect(counts_of(message), next(answers), "the counts")


def counts_of(message: Message) -> dict[str, str]:
    """Return the counts of a message, as Redis has them."""
    counts = Counter(f"reaction:{value}" for value, _ in message.live)
    return {field: str(count) for field, count in counts.items()}


async def weighed_peer(redis: Any, actions: int, to_a_message: int) -> float:
    """Return the bytes a live action takes the peer."""
    await redis.flushall()
    before = await used(redis)
    await peer(redis, actions, to_a_message)
    whole = await used(redis)
    for message in islice(messages(actions, to_a_message), LOOKED_AT):
        counts = await redis.hgetall(f"peer:{{{message.channel}}}:counts:{message.timetoken}")
        kept = {field: count for field, count in counts.items() if count != "0"}
        expect(counts_of(message), kept, "the peer's counts")
    return (whole - before) / actions


async def weighed_alone(redis: Any, actions: int) -> float:
    """Return the bytes of an event in the journal if each comes in a call of its own."""
    await redis.flushall()
    few = max(10, round(actions * ALONE))
    await ours(redis, few, 10, batch=1)
    before = await used(redis)
    await delete(redis, "journal", few, 10)
    return (before - await used(redis)) / (few * (1 + 2 * GONE))


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
            values[f"{name}_alone"] = await weighed_alone(redis, actions)
    WEIGHED[size] = values
    return values


PARTS: Final = {
    "counts": "of it counts and actions",
    "index": "of it the index of messages",
    "tombstones": "of it tombstones",
    "who": "of it who reacted, oldest first",
    "journal": "of it the day's journal",
}


def lines() -> Iterator[Line]:
    """Yield what is said of each server and shape."""
    versions = {name: f"{name} {version(program)}" for name, program in PROGRAMS.items()}
    for name in PROGRAMS:
        for to_a_message, at_most in SHAPES.items():
            mark, where = f"{name}_{to_a_message}", f"{versions[name]}, {to_a_message:,} a message"
            yield Figure(f"{mark}_whole", f"{where}: all that ours keeps", "bytes")
            yield Figure(f"{mark}_peer", f"{where}: a set for each value, a hash", "bytes")
            yield Ratio(f"{mark}_whole", f"{mark}_peer", f"{where}: all of ours / the peer's")
            for part, words in PARTS.items():
                limit = at_most if part == "counts" else None
                yield Figure(f"{mark}_{part}", f"{where}: {words}", "bytes", at_most=limit)
        yield Figure(f"{name}_alone", f"{versions[name]}: journal, one event a call", "bytes")


SKIPPED: Final = (
    ""
    if "Redis" in PROGRAMS
    else " Redis is left out: this machine has no redis-server in its PATH."
)

BENCHMARK: Final = Benchmark(
    name="memory",
    work=(
        f"Keep {ACTIONS:,} live reactions of users with UUIDs, 2, 10, 200 and 25,000 a message: "
        "the growth of used_memory for each. Of 20 events 17 are additions, and 3 remove what was "
        "added: for each live reaction the journal has 1.4 changes, and there are 0.2 tombstones. "
        "All are there when it is weighed, as if the load was an hour's: tombstones go an hour "
        "later, the journal a day later. The worker's own script writes 250 events a call. The "
        "peer keeps a set of users for each value and a hash of counts, which is right while "
        "events come once and in order. It has no times, so it cannot tell a late addition from a "
        "new one; it has no index of messages, no tombstones and no journal. Rounds "
        "do not differ, so there is one." + SKIPPED
    ),
    lines=tuple(lines()),
    round=one_round,
)
