"""A day in the life of a worker, in two minutes: all that happens to it, one by one, under load.

Every reaction is counted in the end, and nobody repairs anything by hand: the worker marks and
repays by itself what a step made it miss.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.comparison import broken_tallies, compare
from tests.deploy.prometheus_server import Prometheus, hurried
from tests.drill.alerts import RULES, Alerts
from tests.drill.load import Load
from tests.drill.shift import OLD, Shift
from tests.drill.windows import total
from tests.redis_server import MortalServer
from tests.waiting import wait_until
from tests.worlds import KEYS, MESSAGE, World, open_world

ROOMS: Final = ("lobby", "garden", "yard")
ADDED: Final = ("attic", "cellar")
LEAVES: Final = "yard"

Say = Callable[[str], None]
Step = tuple[str, Callable[[], Awaitable[str]]]
"""A title, and what does the step and returns a line about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much of everything."""

    seed: int
    per_second: float = 300
    """Acts of users a second, over all channels."""
    past: int = 600
    """Reactions of each channel from before it is followed.

    Users have 120 more at most. So all that is missed of these is less than a fifth of all, which
    is what a reconcile may remove without asking a person.
    """
    breath_seconds: float = 5
    """How long the load goes on between two steps."""
    settle_seconds: float = 5
    """``TALLY_SETTLE_SECONDS``, by default 60: what is owed is repaid sooner."""
    has_prometheus: bool = True


async def run(plan: Plan, folder: Path, say: Say) -> None:
    """Live through the day; say a line a step. Every process has ended afterwards.

    Raises:
        AssertionError: something did not hold; the sentence says what.
    """
    server = MortalServer(folder / "redis")
    try:
        async with (
            open_world(server.url, folder, seed=plan.seed) as world,
            AsyncExitStack() as stack,
        ):
            load = Load(world.state, plan.seed, ROOMS)
            day = Day(plan, Shift(world, load, plan.settle_seconds), server, stack)
            began = time.monotonic()
            for number, step in enumerate(day.steps(), 1):
                say(f"{number:2}  {await _timed(step)}")
            say(f"{time.monotonic() - began:.0f} s; {load.acts:,} acts of users; {day.gaps()}")
    finally:
        server.destroy()


async def _timed(step: Step) -> str:
    title, do = step
    began = time.monotonic()
    try:
        line = await do()
    except AssertionError as error:
        error.add_note(f"in the step: {title}")
        raise
    return f"{title:37} {time.monotonic() - began:5.1f} s  {line}"


class Day:
    """The steps; each returns a line about what was seen."""

    def __init__(
        self, plan: Plan, shift: Shift, server: MortalServer, stack: AsyncExitStack
    ) -> None:
        """``stack`` ends what a step leaves running, the load above all."""
        self._plan = plan
        self._shift = shift
        self._world: World = shift.world
        self._load = shift.load
        self._server = server
        self._stack = stack
        self._loading = AsyncExitStack()
        self._alerts = Alerts()

    def steps(self) -> list[Step]:
        """Return the day, in order."""
        steps: list[Step] = [
            ("a worker starts", self.start),
            ("users begin to react", self.begin),
            ("SIGHUP: two channels more, one less", self.change_list),
            ("SIGHUP: the one is back", self.change_back),
            ("the token expires, after rotation", self.rotate_token),
            ("Redis restarts, its data kept", self.restart_redis),
            ("kill -9, and a new worker", self.kill),
            ("what is owed is repaid", self.repay),
            ("SIGTERM, and a new worker", self.replace),
            ("users go; SIGTERM", self.end),
            ("tally verify --json", self.verify),
        ]
        if self._plan.has_prometheus:
            steps.insert(1, ("Prometheus watches", self.watch))
        return steps

    async def start(self) -> str:
        """Start a worker on channels with a past; PubNub wants a token."""
        for room in ROOMS:
            self._world.add_past(self._plan.past, OLD, room)
        self._shift.list_channels(ROOMS)
        self._shift.rotate("first")
        await self._shift.start()
        await self._shift.become_true(ROOMS)
        return f"ready; {self._plan.past:,} earlier reactions in each of {len(ROOMS)} channels"

    async def watch(self) -> str:
        """Start a Prometheus with the project's alerts, which wait a second instead of minutes."""
        rules = hurried(RULES.read_text(encoding="utf-8"))
        folder = self._world.folder / "prometheus"
        prometheus = Prometheus(folder, {"tally": [self._shift.address]}, rules)
        self._alerts.prometheus = await self._stack.enter_async_context(prometheus)
        await wait_until(prometheus.is_scraping)
        return "scrapes every second; deploy/prometheus/alerts.yml, each `for:` shortened to 1 s"

    async def begin(self) -> str:
        """Let users act from now on, the whole day."""
        await self._stack.enter_async_context(self._loading)
        await self._loading.enter_async_context(self._load.steady(self._plan.per_second))
        acts, began = self._load.acts, time.monotonic()
        await self._breathe()
        rate = (self._load.acts - acts) / (time.monotonic() - began)
        return f"{rate:.0f} acts a second; {await self._shift.probe()}"

    async def change_list(self) -> str:
        """Follow two channels that have a past, and leave one."""
        for room in ADDED:
            self._world.add_past(self._plan.past, OLD, room)
        self._load.channels.remove(LEAVES)
        await self._shift.become_true([LEAVES])
        stay = [room for room in ROOMS if room != LEAVES]
        await self._shift.reload([*stay, *ADDED], added=len(ADDED), removed=1)
        self._load.channels += ADDED
        await wait_until(self._have_their_past, what=self._shift.log)
        line = f"earlier reactions ({self._plan.past:,} each) and later ones are counted"
        return await self._probed(line)

    async def change_back(self) -> str:
        """Follow the channel again in which users went on meanwhile."""
        acts = self._plan.past // 4
        for _ in range(acts):
            self._load.act(LEAVES)
        await self._shift.reload([*ROOMS, *ADDED], added=1, removed=0)
        await self._shift.become_true([LEAVES])
        self._load.channels.append(LEAVES)
        return await self._probed(f"{acts} missed acts are made good, removals too")

    async def rotate_token(self) -> str:
        """Refuse the token that is in use, once another is in the file."""
        worker, gaps = self._shift.worker, self._shift.gaps()
        self._shift.rotate("second")
        await worker.logs("token_renewed")
        figures = await worker.figures()
        refused = sum(value for series, value in figures.items() if 'status="403"' in series)
        line = await self._probed(
            f"{refused:.0f} answers of 403, then the new token, without a gap"
        )
        assert self._shift.gaps() == gaps, "a token that is renewed in time leaves no gap"
        return line

    async def restart_redis(self) -> str:
        """End Redis, start it again."""
        worker = self._shift.worker
        await self._server.end()
        await worker.logs("redis_unavailable")
        fired = await self._alerts.fires("TallyRedisAway")
        await self._server.revive()
        await self._world.redis.connection_pool.disconnect()  # those to the earlier server
        await wait_until(worker.is_ready, what=self._shift.log)
        cleared = await self._alerts.clears("TallyRedisAway")
        return await self._probed(f"ready again{fired}{cleared}")

    async def kill(self) -> str:
        """End the worker without a chance to do anything more; start another."""
        await self._shift.worker.killed()
        fired = await self._alerts.fires("TallyDown")
        await self._shift.start()
        cleared = await self._alerts.clears("TallyDown")
        return await self._probed(f"resumes at the saved cursors{fired}{cleared}")

    async def repay(self) -> str:
        """Wait until the worker owes nothing; users act all along."""
        await self._shift.repay()
        reconciles = total(await self._shift.worker.figures(), "tally_reconciles_total")
        return f"{reconciles:.0f} reconciles of a channel by this worker; nothing is owed"

    async def replace(self) -> str:
        """Stop the worker while users act; start another."""
        seconds = await self._shift.stop()
        await self._shift.start()
        return f"exit code 0 after {seconds:.2f} s; {await self._shift.probe()}"

    async def end(self) -> str:
        """Let users go; stop the worker when it has read all they did."""
        await self._loading.aclose()
        await self._shift.probe()
        await self._shift.repay()
        fired = await self._alerts.summary()  # before the worker is away, which is an alert
        return f"exit code 0 after {await self._shift.stop():.2f} s{fired}"

    async def verify(self) -> str:
        """Compare as an operator does, and then with the truth, as only a drill can."""
        verify = await self._world.do("verify", "--json")
        assert verify.process.returncode == 0, verify.out[-3000:] + verify.tail()
        report = json.loads(verify.out)
        assert report["exact"], verify.out[-3000:]
        wrong = await compare(self._world, [*ROOMS, *ADDED])
        wrong += await broken_tallies(self._world.redis)
        assert not wrong, "\n".join(wrong[:20])
        return (
            f"{len(report['discrepancies'])} differences in {report['entries']:,} entries of "
            f"{report['channels']} channels; every tally and every user is the emulator's truth"
        )

    def gaps(self) -> str:
        """Say what was owed this day, by cause."""
        gaps = [f"{count} {cause}" for cause, count in self._shift.gaps().items()]
        return f"marks, all repaid: {', '.join(gaps)}"

    async def _probed(self, line: str) -> str:
        line = f"{line}; {await self._shift.probe()}"
        await self._breathe()
        return line

    async def _have_their_past(self) -> bool:
        keys = [KEYS.counts(room, MESSAGE) for room in ADDED]
        counts = [await self._world.redis.hget(key, f"reaction:{OLD}") for key in keys]
        return counts == [str(self._plan.past)] * len(ADDED)

    async def _breathe(self) -> None:
        await asyncio.sleep(self._plan.breath_seconds)
