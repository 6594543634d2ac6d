"""Kills workers and restarts Redis at random moments under load; then lets them repair what that did."""

import asyncio
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from tests.chaos.comparison import broken_tallies, differences, strangers
from tests.chaos.crowd import Crowd
from tests.chaos.report import Report
from tests.end_to_end.processes import KEY, KEYS, Child, Stage, wait_until
from tests.redis_server import MortalServer
from worker.cli.reports import reconcile_exit_code, reconcile_json
from worker.domain.position import Range
from worker.emulator import Emulator
from worker.errors import ExitCode
from worker.reconciliation.reconcile import ReconcileOptions
from worker.reconciliation.reconcile import ReconcileReport as Reconciled
from worker.service import commands
from worker.settings import Settings
from worker.store.connection import connect

CHANNELS: Final = ("room", "hall", "lobby", "yard")
LAST: Final = "17699999999999999"
"""The message that everybody's last reaction goes to: once it is counted, all before it was read."""
FAULTS: Final[Mapping[str, float]] = (
    {"late": 0.05, "duplicate": 0.05, "reorder": 0.1, "rewind": 0.05, "ahead": 0.02}  # events
    | {
        "lost": 0.003,
        "unpublished": 0.003,
        "tie": 0.01,
        "twin": 0.002,
        "readd": 0.05,
    }  # what no event tells rightly
    | {"stale": 0.05, "more": 0.05}  # lists
    | {
        "throttle": 0.005,
        "server_error": 0.02,
        "bad_json": 0.01,
        "drop": 0.02,
        "latency": 0.1,
    }  # requests
)
OLD: Final = 0.1
"""The share of workers that are left alone for longer."""
SPARED: Final = 0.7
"""The share of those about to be killed while Redis is down that may see how it comes back."""
YOUNG: Final = 0.4
"""The share of kills that come before or just when a worker begins to listen."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of everything."""

    seed: int
    kills: int = 200
    restarts: int = 20
    workers: int = 2
    """At most so many side by side, on the same channels."""
    back: float = 0.4
    """The share of restarts after which Redis holds an older copy."""
    faults: Mapping[str, float] = field(default_factory=lambda: dict(FAULTS))
    per_second: float = 60
    seconds_between_bursts: float = 20
    pace: float = 1
    """How long lives, outages and what lies between them are, as a multiple of what is usual."""


async def run(plan: Plan, folder: Path) -> Report:
    """Make chaos, let it be repaired, compare. Whatever was started has ended afterwards.

    Raises:
        AssertionError: a worker ended as none may, or did not get over it in time.
    """
    server = MortalServer(folder / "redis")
    try:
        async with (
            connect(server.url) as redis,
            Emulator(seed=plan.seed, subscribe_key=KEY, faults=plan.faults) as emulator,
        ):
            stage = Stage(emulator, redis, server.url, folder)
            stage.settings |= {
                "TALLY_CHANNELS": ",".join(CHANNELS),
                "TALLY_CHANNELS_PER_SUBSCRIPTION": "2",
                "TALLY_SETTLE_SECONDS": "2",
                # On a slow machine so much is missed that a reconcile would leave it to a person.
                "TALLY_PRUNE_LIMIT": "100",
            }
            driver = Driver(plan, stage, server)
            try:
                return await driver.run()
            except Exception as error:
                error.add_note(str(driver.report))
                raise
            finally:
                stage.end()
    finally:
        server.destroy()


class Driver:
    """One run."""

    def __init__(self, plan: Plan, stage: Stage, server: MortalServer) -> None:
        self._plan = plan
        self._stage = stage
        self._server = server
        self.report = Report(plan.seed)
        self._crowd = Crowd(stage.state, Random(f"{plan.seed}:crowd"), CHANNELS)
        self._random = Random(f"{plan.seed}:restarts")
        after = self._random.sample(range(1, plan.kills + 1), plan.restarts)
        self._restarts_after = set(after)
        self._changing_redis = asyncio.Lock()
        self._outages = 0
        self._is_over = False

    async def run(self) -> Report:
        """Make chaos, let it be repaired, compare."""
        began = time.monotonic()
        try:
            await self._make_chaos()
            ended = time.monotonic()
            self.report.chaos_seconds = ended - began
            await self._repair()
            self.report.repair_seconds = time.monotonic() - ended
        finally:
            self._add_up()
        return self.report

    async def _make_chaos(self) -> None:
        plan = self._plan
        async with (
            self._crowd.acting(plan.per_second, plan.seconds_between_bursts),
            asyncio.TaskGroup() as disturbing,
        ):
            disturber = disturbing.create_task(self._disturb(Random(f"{plan.seed}:disturb")))
            async with asyncio.TaskGroup() as group:
                for number in range(plan.workers):
                    group.create_task(
                        self._keep(Random(f"{plan.seed}:{number}"), group, is_second=bool(number))
                    )
            self._is_over = True  # redis-py may swallow the cancellation
            disturber.cancel()

    async def _keep(self, random: Random, group: asyncio.TaskGroup, *, is_second: bool) -> None:
        """Start a worker and kill it, again and again; the second one is not always there."""
        while self.report.kills.total() < self._plan.kills:
            if is_second and random.random() < 0.5:
                await self._wait(0, 4, random)
            outages = self._outages if self._server.is_up else None
            child = self._start()
            await self._live(child, random)
            if child.is_alive:
                await self._kill(child)
                if self.report.kills.total() in self._restarts_after:
                    self._restarts_after.discard(self.report.kills.total())
                    group.create_task(self._restart())
            else:
                self._expect_end(child, had_redis=outages == self._outages and self._server.is_up)

    def _start(self) -> Child:
        self.report.starts += 1
        return self._stage.start("run")

    async def _live(self, child: Child, random: Random) -> None:
        """Return at a moment to die: while it starts, or some time after it began to listen."""
        chance = random.random()
        if chance < YOUNG:
            await self._wait(0, 1.2, random)
            return
        await wait_until(
            lambda: _listens(child) or not child.is_alive, 60, what=lambda: child.err[-3000:]
        )
        least, most = (0.0, 2.5) if chance < 1 - OLD else (3.0, 6.0)
        await self._wait(least, most, random)
        if not self._server.is_up and random.random() < SPARED:
            await wait_until(lambda: self._server.is_up or not child.is_alive, 60)
            await self._wait(0, 3, random)

    async def _kill(self, child: Child) -> None:
        moment = "while it listened" if _listens(child) else "while it started"
        await child.killed()
        self.report.kills[moment if self._server.is_up else "while Redis was down"] += 1

    def _expect_end(self, child: Child, *, had_redis: bool) -> None:
        """A worker may end by itself where it finds no Redis at its start, and only there."""
        code = child.process.wait()
        self.report.ends[code] += 1
        assert code == ExitCode.REDIS_UNFIT, f"tally run ended with {code}\n{child.err[-3000:]}"
        assert not had_redis, (
            f"tally run ended with {code}, though Redis was there\n{child.err[-3000:]}"
        )

    async def _restart(self) -> None:
        async with self._changing_redis:
            random = self._random
            await self._wait(0, 4, random)
            copy = None
            if random.random() < self._plan.back:
                copy = self._server.copy(self._stage.folder / "copy")
                await self._wait(0.5, 4, random)
            self._outages += 1
            way = random.choice(("killed", "ended"))
            await (self._server.kill() if way == "killed" else self._server.end())
            await self._wait(0, 1.5, random)
            await self._server.revive(copy)
            await self._stage.redis.connection_pool.disconnect()  # those to the server that was
            self.report.restarts[f"{way}, back on an older copy" if copy else way] += 1
            await self._look()

    async def _disturb(self, random: Random) -> None:
        """Cut connections to Redis, and make it forget its scripts, now and then."""
        while not self._is_over:
            await self._wait(1, 5, random)
            async with self._changing_redis:
                if random.random() < 0.5:
                    await self._stage.redis.client_kill_filter(_type="normal", skipme=True)
                    await self._stage.redis.connection_pool.disconnect()
                    self.report.disturbances["connections cut"] += 1
                else:
                    await self._stage.redis.script_flush()
                    self.report.disturbances["scripts forgotten"] += 1

    async def _wait(self, least: float, most: float, random: Random) -> None:
        await asyncio.sleep(self._plan.pace * random.uniform(least, most))

    async def _look(self) -> None:
        self.report.looks += 1
        self.report.broken += await broken_tallies(self._stage.redis)

    async def _repair(self) -> None:
        """Stop doing harm; let workers repair what they know of, and a reconcile what nobody can know of."""
        state, stage = self._stage.state, self._stage
        self.report.faults = state.faults.struck.copy()
        state.faults.replace({})
        workers = [self._start() for _ in range(self._plan.workers)]
        await wait_until(lambda: all(map(_listens, workers)), 60, what=lambda: workers[0].err)
        await wait_until(lambda: state.stream.seconds_until_release() is None, 60)
        for channel in CHANNELS:
            state.add(channel, LAST, "reaction", "🏁", "everybody")
        await wait_until(self._has_read_all, 60, what=lambda: workers[0].err[-3000:])
        await wait_until(self._owes_nothing, 60, what=lambda: workers[0].err[-3000:])
        self.report.before = await self._differences()
        settings = Settings.model_validate(stage.settings)
        reconciled = await commands.run_reconcile(settings, [], Range(), ReconcileOptions(), None)
        assert reconcile_exit_code(reconciled) == ExitCode.DONE, reconciled
        self.report.reconciled = _short(reconciled)
        self.report.after = await self._differences()
        at_once = settings.model_copy(update={"settle_seconds": 0.1})  # nothing happens any more
        verified = await commands.run_verify(at_once, [], 1, None)
        assert verified.is_exact or self.report.after, verified
        await self._look()
        for worker in workers:
            worker.ask(signal.SIGTERM)
            assert await worker.ended(60) == ExitCode.DONE, worker.err[-3000:]

    async def _differences(self) -> list[str]:
        redis, state = self._stage.redis, self._stage.state
        return differences(await self._stage.tallies(), state.truth()) + await strangers(
            redis, state, CHANNELS
        )

    async def _has_read_all(self) -> bool:
        counts = [
            await self._stage.redis.exists(KEYS.counts(channel, LAST)) for channel in CHANNELS
        ]
        return all(counts)

    async def _owes_nothing(self) -> bool:
        return not (
            await self._stage.redis.keys("tally:*:progress")
            or await self._stage.redis.keys("tally:*:owed")
        )

    def _add_up(self) -> None:
        report, state = self.report, self._stage.state
        report.acts, report.events, report.actions = self._crowd.acts, state.published, state.live()
        for child in self._stage.children:
            report.gaps.update(entry["cause"] for entry in child.entries("gap"))


def _listens(child: Child) -> bool:
    return '"subscription_starts"' in child.err


def _short(reports: Sequence[Reconciled]) -> str:
    """Return what a reconcile has to tell, all channels together, in one line."""
    told = reconcile_json(reports, dry_run=False)
    return ", ".join(
        f"{value} {name}" for name, value in told.items() if name not in {"channels", "dry_run"}
    )
