"""What a cluster costs beside one server on the same machine, and what a hint costs there."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, cast

from reaction_tally.keys import Keys
from tests.benchmarks.harness import Benchmark, Figure, Ratio, expect
from tests.benchmarks.load import Counts, history, truth
from tests.benchmarks.race import WORKER, Course, Result, know, order, replay, run
from tests.benchmarks.shapes import busy, wide
from tests.redis_cluster import RedisCluster
from tests.redis_server import RedisServer
from worker.domain.action import Observed, Origin
from worker.store.connection import connect
from worker.store.store import Store

KEYS: Final = Keys()
CALLS: Final = 2_000
"""Script calls, one after the other, of one event each."""
HINTS: Final = 100_000
HINT: Final = "room-0001 1760000000123-0"
LEAST: Final = 20
IN_A_PIPELINE: Final = 1_000


@dataclass(frozen=True, slots=True)
class Servers:
    """An address, and the address of each server behind it."""

    url: str
    nodes: Sequence[str]

    async def processor(self) -> float:
        """Return the seconds of the processor that all servers have used."""
        return sum([await spent(url) for url in self.nodes])


@contextmanager
def one_server() -> Iterator[Servers]:
    """Yield one server. Nothing goes to disk."""
    with RedisServer() as server:
        yield Servers(server.url, [server.url])


@contextmanager
def primaries(replicas: int = 0) -> Iterator[Servers]:
    """Yield three primaries, with so many replicas each. Nothing goes to disk."""
    with RedisCluster(replicas=replicas, appendonly="no") as cluster:
        yield Servers(cluster.url, [node.url for node in cluster.nodes])


async def spent(url: str) -> float:
    """Return the seconds of the processor that a server has used."""
    async with connect(url) as redis:
        cpu = await cast("Any", redis).info("cpu")
    return float(cpu["used_cpu_user"] + cpu["used_cpu_sys"])


async def race_on(servers: Servers, course: Course) -> Result:
    """Let the worker count, and compare its counts with the truth."""
    async with connect(servers.url) as redis:
        await know(redis, course)
        with replay(course) as origin:
            before = await servers.processor()
            report = await run(WORKER, order(course, origin, servers.url))
            used = await servers.processor() - before
        expect(truth(course.events), await found(redis, course.events), WORKER.name)
    count = len(course.events)
    return Result(count / report.seconds, 1e6 * report.cpu / count, 1e6 * used / count)


async def found(redis: Any, events: Sequence[Observed]) -> Counts:
    """Return the counts of these messages."""
    places = sorted({(it.identity.channel, it.identity.message_timetoken) for it in events})
    pipe = redis.pipeline(transaction=False)
    for channel, message in places:
        pipe.hgetall(KEYS.counts(channel, message))
    counts: Counts = Counter()
    for (channel, message), fields in zip(places, await pipe.execute(), strict=True):
        for field, count in fields.items():
            type, _, value = field.partition(":")
            counts[channel, message, type, value] = int(count)
    return counts


async def a_call(servers: Servers, size: float) -> dict[str, float]:
    """Return the microseconds of a script call with one event.

    Of the clock, of this process's CPU, and of all servers'.
    """
    calls = max(LEAST, round(CALLS * size))
    events = history(calls, channels=1_000, removals=0, twice=0)
    async with connect(servers.url) as redis:
        store = Store(redis, KEYS)
        for event in events[:LEAST]:  # connections are opened
            await store.apply_all([(event.identity.channel, [event])], Origin.LIVE)
        before = await servers.processor()
        began, used = time.perf_counter(), time.process_time()
        for event in events:
            await store.apply_all([(event.identity.channel, [event])], Origin.LIVE)
        seconds, processor = time.perf_counter() - began, time.process_time() - used
    spent_there = await servers.processor() - before
    spent = {"call": seconds, "call_cpu": processor, "call_redis": spent_there}
    return {name: 1e6 * value / calls for name, value in spent.items()}


async def hints(servers: Servers, size: float) -> tuple[float, float]:
    """Return the microseconds that a hint costs: the server that sends it, and each other one."""
    count = max(IN_A_PIPELINE, round(HINTS * size))
    sender, *others = servers.nodes
    used = [await spent(url) for url in servers.nodes]
    async with connect(sender) as redis:
        for _ in range(count // IN_A_PIPELINE):
            pipe = cast("Any", redis).pipeline(transaction=False)
            for _ in range(IN_A_PIPELINE):
                pipe.publish(KEYS.hints, HINT)
            await pipe.execute()
    await asyncio.sleep(0.5 if others else 0)  # what is on its way arrives
    costs = [await spent(url) - before for url, before in zip(servers.nodes, used, strict=True)]
    at_others = sum(costs[1:]) / len(others) if others else 0.0
    return 1e6 * costs[0] / count, 1e6 * at_others / count


async def one_round(size: float) -> Mapping[str, float]:
    """Measure one server, three primaries, and three with a replica each."""
    values: dict[str, float] = {}
    kinds: Mapping[str, Callable[[], Any]] = {
        "one": one_server,
        "three": primaries,
        "six": lambda: primaries(replicas=1),
    }
    for kind, start in kinds.items():
        for shape, course in (("wide", wide(size)), ("busy", busy(size))):
            with start() as servers:
                values |= (await race_on(servers, course)).values(f"{kind}_{shape}")
        with start() as servers:
            call = await a_call(servers, size)
            values |= {f"{kind}_{name}": value for name, value in call.items()}
            values[f"{kind}_hint"], values[f"{kind}_heard"] = await hints(servers, size)
    return values


def _lines() -> Iterator[Figure | Ratio]:
    names = {
        "one": "one server",
        "three": "three primaries",
        "six": "three primaries, a replica each",
    }
    for kind, name in names.items():
        for shape in ("wide", "busy"):
            yield Figure(f"{kind}_{shape}_rate", f"{name}: {shape}", "events/s")
            yield Figure(f"{kind}_{shape}_cpu", f"{name}: {shape}, worker's CPU an event", "µs")
            yield Figure(f"{kind}_{shape}_redis", f"{name}: {shape}, servers' CPU an event", "µs")
        yield Figure(f"{kind}_call", f"{name}: a call of one event", "µs")
        yield Figure(f"{kind}_call_cpu", f"{name}: worker's CPU for it", "µs")
        yield Figure(f"{kind}_call_redis", f"{name}: servers' CPU for it", "µs")
        yield Figure(f"{kind}_hint", f"{name}: a PUBLISH, CPU of its server", "µs")
        if kind != "one":
            yield Figure(f"{kind}_heard", f"{name}: the same, CPU of each other server", "µs")
    for kind in ("three", "six"):
        for shape in ("wide", "busy"):
            for part in ("rate", "cpu", "redis"):
                key = f"{shape}_{part}"
                yield Ratio(f"{kind}_{key}", f"one_{key}", f"{key}, {names[kind]} / one server")
        yield Ratio(f"{kind}_call", "one_call", f"a call, {names[kind]} / one server")
        yield Ratio(f"{kind}_call_cpu", "one_call_cpu", f"its CPU, {names[kind]} / one server")
        yield Ratio(f"{kind}_call_redis", "one_call_redis", f"servers', {names[kind]} / one server")


BENCHMARK: Final = Benchmark(
    "cluster",
    "The events of wide and busy, counted by one subscription of the worker: on one server, on "
    "three primaries of a cluster, and on three with a replica each; all on this machine, nothing "
    "on disk. With two cores the servers wait for each other, so the rates say what a cluster "
    "costs, and not what it brings: the CPU does. A call is one script call of one event; one "
    f"call follows the other. A hint is a PUBLISH without a subscriber, {HINTS:,} of them.",
    tuple(_lines()),
    one_round,
)
