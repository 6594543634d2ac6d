"""A worker on several servers, to which all happens that may happen: a cluster, or sentinels.

Users react all the time. What the servers forget is marked and repaired by the worker alone. In the
end nothing is owed, and every tally is compared with the truth, by this drill and by ``tally
verify``.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.cluster import RedisCluster as ClusterClient
from redis.asyncio.sentinel import Sentinel

from tests.drill.interruptions import (
    Interruption,
    interruption,
    read_all_journals,
)
from tests.drill.load import Load
from tests.drill.mishaps import (
    ClusterServers,
    Mishap,
    Mishaps,
    OneServer,
    SentinelServers,
    Servers,
)
from tests.drill.report import Report
from tests.drill.rooms import NEVER, Rooms
from tests.drill.soak import APPLIED, CPU
from tests.redis_cluster import RedisCluster
from tests.sentinels import SERVICE, Sentinels
from tests.server_nodes import HOST
from tests.waiting import wait_until
from tests.worlds import KEY, KEYS, World
from worker.emulator import Emulator

BREATH_SECONDS: Final = (1.0, 4.0)
"""How long the load goes on between two mishaps."""
RESTS: Final = 0.5
"""The part of the mishaps that come when all before them is repaired."""
KILLED: Final = 0.5
"""The part of lost replicas whose worker is killed, too."""
PAST: Final = 60
"""Reactions of each channel from before the worker."""
ROOM: Final = 75
"""Events of a subscription in these answers, and a few more."""
ANSWERS: Final = 18
"""A worker has at most so many answers in hand, and reads them again where Redis went back.

So PubNub's cache has all of them, and what is repaired is what the servers lost.
"""
COUNT_SECONDS: Final = 120.0
REPAIR_SECONDS: Final = 600.0
REST_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 0.2
NOTED: Final = (
    *("gap", "redis_unavailable", "redis_restarted"),
    *("redis_went_back", "shards_changed"),
)
"""Log entries that are counted."""

KINDS: Final = ("cluster", "sentinels", "one")
"""What holds the data. Nothing happens to ``one`` server: it is there for its cost."""
CALM_SECONDS: Final = 10.0
"""How long the cost of an event is measured before the first mishap."""
HEAD: Final = f"{'':40}   without a count: where it hit, elsewhere; the oldest event"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much of everything."""

    seed: int
    kind: str = "cluster"
    """One of ``KINDS``."""
    rate: float = 2000
    """Events a second."""
    rooms: Rooms = field(default_factory=lambda: Rooms(300, each=10))
    settings: Mapping[str, str] = field(default_factory=dict)
    """Of the worker, besides those of the drill."""
    settle_seconds: float = 5
    node_timeout: int = 1000
    """Milliseconds until a node of a cluster counts as dead."""
    mishaps: Sequence[str] = ()
    """Methods of ``Mishaps``, in this order; without them all, in the order of the seed."""


@dataclass(slots=True, kw_only=True)
class Failovers(Report):
    """What was seen. ``gaps`` counts channels."""

    interruptions: dict[str, list[Interruption]] = field(default_factory=dict)
    """Title of a mishap → one for each time that it happened."""
    calm: str = ""
    """What an event costs while nothing happens."""
    load_seconds: float = 0
    repair_seconds: float = 0
    """From the end of the load until nothing was owed."""
    verified: str = ""
    codes: list[int] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether every tally is the truth."""
        return not self.wrong and set(self.codes) == {0}

    def __str__(self) -> str:
        rows = {
            "load": f"{self.acts:,} events, {self.acts / self.load_seconds:,.0f} a second",
            "calm": self.calm,
            "owed": dict(self.gaps),
            "lists": f"{self.listed} requests",
            "repaired": f"{self.repair_seconds:.1f} s after the end of the load",
            "verify": self.verified,
            "exit codes": self.codes,
        }
        return self.table(rows)


async def run(plan: Plan, folder: Path, say: Say) -> Failovers:
    """Let all happen under load; compare when nothing is owed."""
    async with AsyncExitStack() as stack:
        servers, url, redis = await _started(plan, stack)
        emulator = await stack.enter_async_context(Emulator(seed=plan.seed, subscribe_key=KEY))
        world = World(emulator, redis, url, folder)
        stack.callback(world.end)
        world.settings |= plan.rooms.settings | {
            "TALLY_SETTLE_SECONDS": str(plan.settle_seconds),
            "TALLY_RECONCILE_SECONDS": NEVER,
            **plan.settings,
        }
        return await Trial(plan, servers, world, say).run()


async def _started(plan: Plan, stack: AsyncExitStack) -> tuple[Servers | OneServer, str, Any]:
    blocking = stack.enter_context(ExitStack())
    if plan.kind == "cluster":
        cluster = RedisCluster(cluster_node_timeout=str(plan.node_timeout))
        await asyncio.to_thread(blocking.enter_context, cluster)
        nodes = [ClusterNode(HOST, node.port) for node in cluster.nodes]
        client = ClusterClient(startup_nodes=nodes, decode_responses=True)
        return ClusterServers(cluster), cluster.url, await stack.enter_async_context(client)
    if plan.kind == "one":
        server = blocking.enter_context(OneServer())
        redis = Redis.from_url(server.url, decode_responses=True)
        return server, server.url, await stack.enter_async_context(redis)
    sentinels = Sentinels()
    await asyncio.to_thread(blocking.enter_context, sentinels)
    # redis-py leaves this class without types.
    watching: Any = Sentinel([(HOST, node.port) for node in sentinels.sentinels])  # type: ignore[no-untyped-call]
    redis = watching.master_for(SERVICE, decode_responses=True)
    return SentinelServers(sentinels), sentinels.url, await stack.enter_async_context(redis)


class Trial:
    """One run."""

    def __init__(self, plan: Plan, servers: Servers | OneServer, world: World, say: Say) -> None:
        self._plan = plan
        self._servers = servers
        self._world = world
        self._say = say
        self._random = Random(f"{plan.seed}:trial")
        self._load = Load(world.state, plan.seed, plan.rooms.names, ROOM, answers=ANSWERS)
        self._mishaps: list[Callable[[], Mishap]] = []
        if not isinstance(servers, OneServer):
            mishaps = Mishaps(servers, plan.seed)
            mishaps.when_lost = self._worker_may_die
            chosen = [getattr(mishaps, name) for name in plan.mishaps]
            self._mishaps = chosen or mishaps.in_order()
        self._report = Failovers()
        for channel in plan.rooms.names:
            world.add_past(PAST, "🕰", channel)
        self._worker = world.start("run")

    async def run(self) -> Failovers:
        """Let all happen; compare."""
        await self._is_ready()
        began = time.monotonic()
        async with self._load.steady(self._plan.rate):
            await self._counts(time.time())
            self._report.calm = await self._cost()
            self._say(self._report.calm)
            for happen in self._mishaps:
                await asyncio.sleep(self._random.uniform(*BREATH_SECONDS))
                if self._random.random() < RESTS:
                    with suppress(AssertionError):  # more may be owed than users leave time for
                        await self._repairs(REST_SECONDS)
                await self._happens(happen)
            await asyncio.sleep(BREATH_SECONDS[1])
        self._report.load_seconds = time.monotonic() - began
        await self._compare()
        return self._report

    async def _cost(self) -> str:
        """Return what an event costs now."""
        before, began = await self._spent(), time.monotonic()
        await asyncio.sleep(CALM_SECONDS)
        after, seconds = await self._spent(), time.monotonic() - began
        worker, servers, events = (late - early for late, early in zip(after, before, strict=True))
        return (
            f"{events / seconds:,.0f} events/s; an event costs {1e6 * worker / events:.0f} us "
            f"of the worker's CPU, {1e6 * servers / events:.0f} us of all servers'"
        )

    async def _spent(self) -> tuple[float, float, float]:
        """Return the seconds of the worker's CPU and of all servers', and the events."""
        figures = await self._worker.figures()
        infos = await asyncio.to_thread(self._servers.processor)
        return figures[CPU], infos, figures[APPLIED]

    async def _is_ready(self) -> None:
        worker = self._worker
        await wait_until(lambda: not worker.is_alive or worker.entries("http_listens"))
        assert worker.is_alive, worker.err
        await wait_until(worker.is_ready, COUNT_SECONDS, what=worker.tail)

    def _worker_may_die(self) -> None:
        if self._random.random() < KILLED:
            self._worker.process.kill()
            self._worker.process.wait()

    async def _happens(self, happen: Callable[[], Mishap]) -> None:
        before = self._noted()
        mishap = await asyncio.to_thread(happen)
        if not self._worker.is_alive:
            assert self._worker.process.wait() < 0, self._worker.tail()
            self._worker = self._world.start("run")
            mishap.facts.append("the worker was killed, too")
        await self._counts(time.time())
        await asyncio.sleep(1)  # what is noticed later is logged later
        journals = await asyncio.to_thread(
            read_all_journals, self._servers.primaries(), mishap.began - 1
        )
        measured = interruption([journals, mishap.seen], mishap.hit)
        self._report.interruptions.setdefault(mishap.title, []).append(measured)
        noted = ", ".join(f"{name} {count}" for name, count in (self._noted() - before).items())
        facts = "; ".join(mishap.facts)
        self._say(f"{mishap.title:40} {measured}  {facts}; {noted or 'nothing noticed'}")

    def _noted(self) -> Counter[str]:
        """Count what the workers' logs say of Redis, and the channels of each gap."""
        noted: Counter[str] = Counter()
        for child in self._world.children:
            for entry in child.entries_of(NOTED):
                cause = entry.get("cause", "")
                channels = entry["channels"] if cause else 1
                noted[f"{entry['event']} {cause}".strip()] += channels
        return noted

    async def _counts(self, since: float) -> None:
        """Return when something newer was counted in each channel."""

        async def are_counted() -> bool:
            assert self._worker.is_alive, self._worker.tail()
            await asyncio.sleep(LOOK_SECONDS)
            pipe = self._world.redis.pipeline(transaction=False)
            for channel in self._plan.rooms.names:
                pipe.get(KEYS.head(channel))
            heads = await pipe.execute()
            return all(head and int(head.partition("-")[0]) > 1000 * since for head in heads)

        await wait_until(are_counted, COUNT_SECONDS, what=self._worker.tail)

    async def _repairs(self, seconds: float) -> None:
        """Return when nothing is owed."""

        async def owes_nothing() -> bool:
            assert self._worker.is_alive, self._worker.tail()
            await asyncio.sleep(LOOK_SECONDS)
            return await self._world.owes_nothing()

        await wait_until(owes_nothing, seconds, what=self._worker.tail)

    async def _compare(self) -> None:
        report, world = self._report, self._world
        began = time.monotonic()
        await self._repairs(REPAIR_SECONDS)
        with suppress(AssertionError):  # the report says what is wrong
            await wait_until(world.is_exact, COUNT_SECONDS)
        await self._repairs(REPAIR_SECONDS)
        report.repair_seconds = time.monotonic() - began
        report.acts = self._load.acts
        await report.compare(world, self._plan.rooms.names)
        report.gaps = Counter(
            {name: count for name, count in self._noted().items() if name.startswith("gap")}
        )
        verify = await self._world.do("verify")
        report.verified = (
            verify.out.strip().splitlines()[-1] if verify.out.strip() else verify.tail()
        )
        report.codes = [verify.process.wait(), await self._worker.stopped()]
