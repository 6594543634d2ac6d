"""Parts the network at random places under load, heals it in random order, and compares."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.comparison import compare
from tests.crowds import Crowd
from tests.partitions.link import Way
from tests.partitions.network import Network, Seam, cluster_of_six, one_server
from tests.partitions.nodes import LinkedCluster
from tests.partitions.report import Report
from tests.processes import Child
from tests.waiting import wait_until
from tests.worlds import KEY, KEYS, MESSAGE, World
from worker.emulator import Emulator

CHANNELS: Final = tuple(f"room-{number}" for number in range(24))
SETTINGS: Final = {
    "TALLY_CHANNELS": ",".join(CHANNELS),
    "TALLY_CHANNELS_PER_SUBSCRIPTION": "8",
    "TALLY_SETTLE_SECONDS": "2",
    # A long partition misses so much that a reconcile would leave it to a person.
    "TALLY_PRUNE_LIMIT": "100",
    # No round falls into a run: what is repaired was marked.
    "TALLY_RECONCILE_SECONDS": str(10**9),
}
PAST: Final = 50
PROBE_SECONDS: Final = 2.0
LOOK_SECONDS: Final = 0.1
REST_SECONDS: Final = 5.0
"""So long nothing may be owed: a loss is noticed within a second or two."""
LONG_SECONDS: Final = 10.0
REPAIR_SECONDS: Final = 300.0
LOST: Final = ("redis_went_back", "shards_changed")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much of everything."""

    seed: int
    partitions: int = 20
    is_cluster: bool = False
    workers: int = 2
    per_second: float = 60
    longest_seconds: float = 6
    are_splits: bool = False
    """Only primaries are cut off, one at a time. Workers reach them: what they write is lost."""
    kills: int = 0
    """Of workers: in a cluster when a replica becomes a primary, else at random moments."""


async def run(plan: Plan, folder: Path, say: Say) -> Report:
    """Part and heal the network. Every process has ended afterwards.

    Raises:
        AssertionError: a worker ended, or did not repair in time.
    """
    opened = cluster_of_six(plan.workers) if plan.is_cluster else one_server(folder, plan.workers)
    async with opened as network, Emulator(seed=plan.seed, subscribe_key=KEY) as emulator:
        # Nobody here reads through a reader: it need not know the cluster.
        world = World(emulator, Redis(), network.url, folder)
        world.redis = network.redis
        world.settings |= SETTINGS
        for link in network.pubnub:
            link.lead_to(int(emulator.origin.rpartition(":")[2]))
        try:
            return await Driver(plan, network, world, say).run()
        finally:
            world.end()


class Driver:
    """One run."""

    def __init__(self, plan: Plan, network: Network, world: World, say: Say) -> None:
        self._plan = plan
        self._network = network
        self._world = world
        self._say = say
        self._random = Random(f"{plan.seed}:partitions")
        self._crowd = Crowd(world.state, f"{plan.seed}:crowd", CHANNELS, messages=10, users=10)
        self._workers: list[Child] = []
        self._probes: dict[str, deque[tuple[str, float]]] = {name: deque() for name in CHANNELS}
        self._replaced: set[int] = set()
        self._is_over = False
        self._began = self._healed = time.monotonic()
        self.report = Report(seed=plan.seed)

    async def run(self) -> Report:
        """Part, heal, let the workers repair, compare."""
        world, report = self._world, self.report
        for channel in CHANNELS:
            world.add_past(PAST, "🕰", channel)
        self._workers = [self._start(number) for number in range(self._plan.workers)]
        await wait_until(lambda: all(map(_listens, self._workers)), what=world.logs)
        try:
            await self._part_and_heal()
            await self._repair()
        finally:
            self._add_up()
        return report

    def _start(self, number: int) -> Child:
        port = self._network.pubnub[number].port
        return self._world.start("run", PUBNUB_ORIGIN=f"127.0.0.1:{port}")

    async def _part_and_heal(self) -> None:
        watch = asyncio.create_task(self._watch_failovers())
        probes = asyncio.create_task(self._probe())
        looks = asyncio.create_task(self._look_for_probes())
        acting = self._crowd.acting(self._world.emulator, self._plan.per_second, pauses=False)
        try:
            async with acting, asyncio.TaskGroup() as group:
                for _ in range(self._plan.partitions if self._plan.are_splits else 0):
                    await self._split()
                for number in range(0 if self._plan.are_splits else self._plan.partitions):
                    await asyncio.sleep(self._random.uniform(0, self._plan.longest_seconds / 2))
                    seam = self._random.choice(self._network.seams)
                    group.create_task(self._part(seam))
                    if number < self._plan.kills and not self._network.cluster:
                        group.create_task(self._kill_later(number % self._plan.workers))
            await self._network.heal()
            self._tell("all is healed")
            self._healed = time.monotonic()
            self._is_over = True
            await probes
            await looks
        finally:
            for task in (watch, probes, looks):
                task.cancel()

    async def _split(self) -> None:
        """Cut one primary off from its peers until another one has taken its place."""
        cluster = self._network.cluster
        assert cluster
        await asyncio.to_thread(cluster.wait_until_healthy)
        await wait_until(lambda: all(map(_listens, self._workers)), what=self._world.logs)
        await asyncio.sleep(self._random.uniform(0, self._plan.longest_seconds))
        place = cluster.places[self._random.choice(await asyncio.to_thread(_primaries, cluster))]
        others = [other for other in cluster.places if other is not place]
        failovers = self.report.failovers
        self._tell(f"node {place.number} is a primary apart")
        self.report.ways[Way.SILENT.value] += 1
        await cluster.part(Way.SILENT, [place], others)
        await wait_until(lambda: self.report.failovers > failovers)
        await asyncio.sleep(self._random.uniform(0, 1))
        await cluster.part(Way.OPEN, [place], others)

    async def _part(self, seam: Seam) -> None:
        random = self._random
        way = random.choice((Way.SILENT, Way.SILENT, Way.CUT, Way.SLOW))
        seconds = random.uniform(0.3, self._plan.longest_seconds)
        self._tell(f"{seam.name}: {way.value} for {seconds:.1f} s")
        self.report.ways[way.value] += 1
        await seam.change(way)
        await asyncio.sleep(seconds)
        await seam.change(Way.OPEN)
        self._tell(f"{seam.name}: healed")

    async def _kill_later(self, number: int) -> None:
        await asyncio.sleep(self._random.uniform(0, 3))
        await self._replace(number)

    async def _replace(self, number: int) -> None:
        """Kill a worker, and start another one."""
        self._replaced.add(number)
        await self._workers[number].killed()
        self.report.kills += 1
        self._tell(f"worker {number}: killed")
        self._workers[number] = self._start(number)
        self._replaced.discard(number)

    async def _supervise(self) -> None:
        """Start a worker that has ended again: it may find no Redis at its start."""
        for number, child in enumerate(self._workers):
            if not child.is_alive and number not in self._replaced:
                code = child.process.wait()
                self.report.ends[code] += 1
                self._tell(f"worker {number} ended with {code}")
                self._workers[number] = self._start(number)

    async def _probe(self) -> None:
        """Let a user react in each channel, now and then."""
        number = 0
        while not self._is_over:
            number += 1
            for channel, waiting in self._probes.items():
                user = f"probe-{number}"
                self._world.state.add(channel, MESSAGE, "probe", "✔", user)
                waiting.append((user, time.monotonic()))
            await asyncio.sleep(PROBE_SECONDS)

    async def _look_for_probes(self) -> None:
        """Look when each reaction is counted: the oldest of each channel first."""
        while not self._is_over or any(self._probes.values()):
            looks = [self._look(channel) for channel, waiting in self._probes.items() if waiting]
            await asyncio.gather(*looks)
            await self._supervise()
            await asyncio.sleep(LOOK_SECONDS)
            is_late = self._is_over and time.monotonic() > self._healed + REPAIR_SECONDS
            assert not is_late, self._world.logs()

    async def _look(self, channel: str) -> None:
        waiting, key = self._probes[channel], KEYS.actions(channel, MESSAGE)
        # redis-py closes a connection under another call that uses it: an AttributeError.
        with suppress(RedisError, OSError, AttributeError):
            while waiting and await self._world.redis.hexists(key, f"probe:✔:{waiting[0][0]}"):
                seconds = time.monotonic() - waiting.popleft()[1]
                if seconds > LONG_SECONDS:
                    self._tell(f"{channel}: a reaction is counted after {seconds:.1f} s")
                self.report.uncounted_seconds = max(self.report.uncounted_seconds, seconds)

    async def _watch_failovers(self) -> None:
        cluster = self._network.cluster
        primaries: set[int] = set()
        while cluster:
            nodes = await asyncio.to_thread(_primaries, cluster)
            new = set(nodes) - primaries
            if primaries and new:
                self.report.failovers += len(new)
                self._tell(f"primaries: {nodes}")
                await self._kill_all()
            primaries = set(nodes)
            await asyncio.sleep(LOOK_SECONDS)

    async def _kill_all(self) -> None:
        """Kill whoever knew what the primary of before had acknowledged."""
        if self.report.kills < self._plan.kills:
            for number in range(self._plan.workers):
                await self._replace(number)

    async def _repair(self) -> None:
        """Return when nothing was owed for a while; compare then."""
        world, report = self._world, self.report
        await self._supervise()
        await wait_until(self._owes_nothing_for_long, REPAIR_SECONDS, what=world.logs)
        report.repair_seconds = time.monotonic() - self._healed - REST_SECONDS
        for child in self._workers:
            assert child.is_alive, child.tail()
        report.differences = await compare(world, CHANNELS)
        verify = await world.do("verify")
        report.verified = verify.process.wait()
        if report.verified:
            report.differences += verify.out.splitlines()[-10:]
        for child in self._workers:
            assert await child.stopped() == 0, child.tail()

    async def _owes_nothing_for_long(self) -> bool:
        end = time.monotonic() + REST_SECONDS
        while time.monotonic() < end:
            if not await self._world.owes_nothing():
                return False
            await asyncio.sleep(LOOK_SECONDS)
        return True

    def _add_up(self) -> None:
        report = self.report
        report.acts = self._crowd.acts
        for child in self._world.children:
            report.gaps.update(entry["cause"] for entry in child.entries("gap"))
            if "Traceback" in child.err:
                report.crashes.append(child.tail())
            report.losses.update({event: len(child.entries(event)) for event in LOST})

    def _tell(self, line: str) -> None:
        self._say(f"{time.monotonic() - self._began:7.2f} s  {line}")


def _primaries(cluster: LinkedCluster) -> list[int]:
    return [number for number, node in enumerate(cluster.nodes) if node.is_primary()]


def _listens(child: Child) -> bool:
    return '"subscription_starts"' in child.err
