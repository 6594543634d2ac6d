"""Kills workers and restarts Redis at random moments under load."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from random import Random
from typing import Final

from tests.chaos.repair import Repair, listens
from tests.chaos.report import Report
from tests.comparison import broken_tallies
from tests.crowds import Crowd
from tests.processes import Child
from tests.redis_server import MortalServer
from tests.releases import TODAY, Environment
from tests.waiting import wait_until
from tests.worlds import World, open_world
from worker.errors import ExitCode

CHANNELS: Final = ("room", "hall", "lobby", "yard")
SETTINGS: Final = {
    "TALLY_CHANNELS": ",".join(CHANNELS),
    "TALLY_CHANNELS_PER_SUBSCRIPTION": "2",
    "TALLY_SETTLE_SECONDS": "2",
    # On a slow machine so much is missed that a reconcile would leave it to a person.
    "TALLY_PRUNE_LIMIT": "100",
}
EVENT_FAULTS: Final = {
    "late": 0.05,
    "duplicate": 0.05,
    "reorder": 0.1,
    "rewind": 0.05,
    "ahead": 0.02,
}
MISSING_EVENTS: Final = {
    "lost": 0.003,
    "unpublished": 0.003,
    "tie": 0.01,
    "twin": 0.002,
    "readd": 0.05,
}
LIST_FAULTS: Final = {"stale": 0.05, "more": 0.05}
REQUEST_FAULTS: Final = {
    "throttle": 0.005,
    "server_error": 0.02,
    "bad_json": 0.01,
    "drop": 0.02,
    "latency": 0.1,
}
FAULTS: Final[Mapping[str, float]] = EVENT_FAULTS | MISSING_EVENTS | LIST_FAULTS | REQUEST_FAULTS
PAST: Final = 300
"""Reactions of each channel from before the first worker; they stay."""
BURST: Final = 130
"""Acts at once in one channel: more than PubNub's cache holds."""
YOUNG: Final = 0.4
"""The share of kills before or just when a worker begins to listen, if the plan has no other."""
OLD: Final = 0.1
"""The share of workers that live for longer."""
DIFFERENT: Final = 0.75
"""The share of workers that are of another release than the one beside them, if there are two."""
COMPANY_SECONDS: Final = 600
"""A worker waits so long at most for another one, where releases are side by side."""
SPARED: Final = 0.7
"""The share of workers, due to be killed while Redis is down, that live until it is back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much of everything."""

    seed: int
    kills: int = 200
    restarts: int = 20
    workers: int = 2
    """At most so many side by side, on the same channels."""
    releases: Sequence[Environment] = (TODAY,)
    """A worker that ended is followed by one of these. Mostly it is not the other worker's.

    Sometimes it is: an upgrade of both, or a way back.
    """
    young: float = YOUNG
    """The share of kills before or just when a worker begins to listen."""
    stops: float = 0
    """The share of workers that are stopped in order, as in a planned upgrade, and not killed."""
    back: float = 0.4
    """The share of restarts after which Redis holds an older copy."""
    faults: Mapping[str, float] = field(default_factory=lambda: dict(FAULTS))
    per_second: float = 60
    seconds_between_bursts: float = 20
    pace: float = 1
    """A factor for the length of lives, outages and pauses."""


async def run(plan: Plan, folder: Path) -> Report:
    """Make chaos, let it be repaired, compare. Every process has ended afterwards.

    Raises:
        AssertionError: a worker ended as none may, or was not repaired in time.
    """
    server = MortalServer(folder / "redis")
    try:
        async with open_world(server.url, folder, seed=plan.seed, faults=plan.faults) as world:
            world.settings |= SETTINGS
            driver = Driver(plan, world, server)
            try:
                return await driver.run()
            except Exception as error:
                error.add_note(str(driver.report))
                raise
    finally:
        server.destroy()


class Driver:
    """One run."""

    def __init__(self, plan: Plan, world: World, server: MortalServer) -> None:
        self._plan = plan
        self._world = world
        self._server = server
        self.report = Report(seed=plan.seed)
        self._crowd = Crowd(world.state, f"{plan.seed}:crowd", CHANNELS, messages=10, users=10)
        for channel in CHANNELS:
            world.add_past(PAST, "🕰", channel)
        self._random = Random(f"{plan.seed}:restarts")
        self._restarts_after = set(self._random.sample(range(1, plan.kills + 1), plan.restarts))
        self._changing_redis = asyncio.Lock()
        self._running: dict[int, tuple[Child, Environment]] = {}
        self._outages = 0
        self._is_over = False

    async def run(self) -> Report:
        """Make chaos, let it be repaired, compare."""
        report, began = self.report, time.monotonic()
        try:
            await self._make_chaos()
            ended = time.monotonic()
            report.chaos_seconds = ended - began
            await Repair(self._world, report, CHANNELS).run(self._last_releases())
            report.repair_seconds = time.monotonic() - ended
        finally:
            self._add_up()
        return report

    def _add_up(self) -> None:
        report, state = self.report, self._world.state
        report.acts = self._crowd.acts
        report.events = state.published
        report.actions = state.live()
        for child in self._world.children:
            report.gaps.update(entry["cause"] for entry in child.entries("gap"))
            report.versions.update(entry["version"] for entry in child.entries("worker_starts"))

    def _last_releases(self) -> list[Environment]:
        return list(islice(cycle(self._plan.releases), self._plan.workers))

    async def _make_chaos(self) -> None:
        plan = self._plan
        async with (
            self._crowd.acting(self._world.emulator, plan.per_second, pauses=False),
            asyncio.TaskGroup() as disturbing,
        ):
            disturber = disturbing.create_task(self._disturb(Random(f"{plan.seed}:disturb")))
            bursts = disturbing.create_task(self._burst(Random(f"{plan.seed}:bursts")))
            async with asyncio.TaskGroup() as group:
                for number in range(plan.workers):
                    group.create_task(self._keep_killing(number, group))
            self._is_over = True  # redis-py may swallow the cancellation
            disturber.cancel()
            bursts.cancel()

    async def _keep_killing(self, number: int, group: asyncio.TaskGroup) -> None:
        """Start a worker and kill it, again and again; the second one is not always there."""
        random = Random(f"{self._plan.seed}:{number}")
        report = self.report
        while not self._has_killed_enough:
            if number and random.random() < 0.5:
                await self._wait(0, 4, random)
            outages = self._outages if self._server.is_up else None
            report.starts += 1
            child = self._start(number, random)
            await self._live(child, random)
            if not child.is_alive:
                has_redis = outages == self._outages and self._server.is_up
                self._expect_end(child, has_redis=has_redis)
                continue
            self._look_beside(number)
            if await self._has_stopped(child, random):
                continue
            await self._kill(child)
            if report.kills.total() in self._restarts_after:
                self._restarts_after.discard(report.kills.total())
                group.create_task(self._restart())

    @property
    def _has_killed_enough(self) -> bool:
        return self.report.kills.total() >= self._plan.kills

    def _start(self, number: int, random: Random) -> Child:
        release = self._next_release(number, random)
        child = self._world.start("run", **release)
        self._running[number] = child, release
        return child

    def _next_release(self, number: int, random: Random) -> Environment:
        """Return the release of the next worker."""
        releases = self._plan.releases
        if len(releases) == 1:
            return releases[0]
        beside = [release for other, (_, release) in self._running.items() if other != number]
        different = [release for release in releases if release not in beside]
        if different and random.random() < DIFFERENT:
            return different[0]
        return random.choice(releases)

    def _has_company(self, child: Child) -> bool:
        """Tell whether another worker listens, or none will."""
        if not child.is_alive or self._has_killed_enough:
            return True
        others = [other for other, _ in self._running.values() if other is not child]
        return any(map(_listens_now, others))

    def _look_beside(self, number: int) -> None:
        """Count an end of a worker beside one of another release that listens."""
        _, release = self._running[number]
        listening = [other for child, other in self._running.values() if _listens_now(child)]
        self.report.beside += any(other != release for other in listening)

    async def _has_stopped(self, child: Child, random: Random) -> bool:
        """Stop a worker in order, if this is to be a planned upgrade, and it listens."""
        if not self._plan.stops or random.random() >= self._plan.stops:
            return False
        # Redis is up.
        async with self._changing_redis:
            if not _listens_now(child):
                return False
            code = await child.stopped()
        assert code == ExitCode.DONE, f"a stop ended with {code}\n{child.tail()}"
        self.report.stops += 1
        return True

    async def _live(self, child: Child, random: Random) -> None:
        """Return at the moment of a kill: while the worker starts, or after it began to listen."""
        chance = random.random()
        if chance < self._plan.young:
            await self._wait(0, 1.2, random)
            return
        await wait_until(lambda: listens(child) or not child.is_alive, what=child.tail)
        if len(self._plan.releases) > 1:
            await wait_until(lambda: self._has_company(child), COMPANY_SECONDS, what=child.tail)
        if chance < 1 - OLD:
            await self._wait(0, 2.5, random)
        else:
            await self._wait(3, 6, random)
        if not self._server.is_up and random.random() < SPARED:
            await wait_until(lambda: self._server.is_up or not child.is_alive)
            await self._wait(0, 3, random)

    async def _kill(self, child: Child) -> None:
        moment = "while it listened" if listens(child) else "while it started"
        await child.killed()
        self.report.kills[moment if self._server.is_up else "while Redis was down"] += 1

    def _expect_end(self, child: Child, *, has_redis: bool) -> None:
        """A worker may end by itself only if it finds no Redis at its start."""
        code = child.process.wait()
        self.report.ends[code] += 1
        assert code == ExitCode.REDIS_UNFIT, f"tally run ended with {code}\n{child.tail()}"
        assert not has_redis, f"tally run ended with {code} beside a Redis\n{child.tail()}"

    async def _restart(self) -> None:
        async with self._changing_redis:
            random = self._random
            await self._wait(0, 4, random)
            copy = None
            if random.random() < self._plan.back:
                copy = self._server.copy(self._world.folder / "copy")
                await self._wait(0.5, 4, random)
            self._outages += 1
            way = random.choice(("killed", "ended"))
            await (self._server.kill() if way == "killed" else self._server.end())
            await self._wait(0, 1.5, random)
            await self._server.revive(copy)
            await self._world.redis.connection_pool.disconnect()  # those to the earlier server
            self.report.restarts[f"{way}, back on an older copy" if copy else way] += 1
            self.report.checks += 1
            self.report.broken += await broken_tallies(self._world.redis)

    async def _burst(self, random: Random) -> None:
        """Let users act far too much at once in one channel, now and then."""
        while not self._is_over:
            await asyncio.sleep(random.expovariate(1 / self._plan.seconds_between_bursts))
            channel = random.choice(CHANNELS)
            for _ in range(BURST):
                self._crowd.act(channel)

    async def _disturb(self, random: Random) -> None:
        """Cut connections to Redis, or make it forget its scripts, now and then."""
        redis, disturbances = self._world.redis, self.report.disturbances
        while not self._is_over:
            await self._wait(1, 5, random)
            async with self._changing_redis:
                if random.random() < 0.5:
                    await redis.client_kill_filter(_type="normal", skipme=True)
                    await redis.connection_pool.disconnect()
                    disturbances["connections cut"] += 1
                else:
                    await redis.script_flush()
                    disturbances["scripts forgotten"] += 1

    async def _wait(self, least: float, most: float, random: Random) -> None:
        await asyncio.sleep(self._plan.pace * random.uniform(least, most))


def _listens_now(child: Child) -> bool:
    return child.is_alive and listens(child)
