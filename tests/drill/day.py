"""A day in the life of a worker, in six minutes: all that happens to it, one by one, under load.

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
from tests.deploy.prometheus_server import Prometheus, sped_up
from tests.drill.alerts import RULES, TIMES_FASTER, Alerts
from tests.drill.load import Load
from tests.drill.outages import SHORT_MINUTES, Outages
from tests.drill.shift import LAST_DAY_MINUTES, OLD, Shift
from tests.drill.windows import total
from tests.redis_server import MortalServer
from tests.source.proxied import behind_a_proxy
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
    full_seconds: float = 15
    """So soon ``/readyz`` says that Redis is full."""
    has_prometheus: bool = True
    are_tokens_short: bool = True
    """Whether a token ends of itself, which takes more than a minute."""


async def run(plan: Plan, folder: Path, say: Say) -> None:
    """Live through the day; say a line a step. Every process has ended afterwards.

    Raises:
        AssertionError: something did not hold; the sentence says what.
    """
    server = MortalServer(folder / "redis")
    try:
        async with (
            open_world(server.url, folder, seed=plan.seed) as world,
            behind_a_proxy(world.emulator.origin, folder) as (proxy, settings),
            AsyncExitStack() as stack,
        ):
            world.settings |= settings
            load = Load(world.state, plan.seed, ROOMS)
            outages = Outages(
                shift=Shift(world, load, plan.settle_seconds),
                server=server,
                proxy=proxy,
                alerts=Alerts(),
                settle_seconds=plan.settle_seconds,
                full_seconds=plan.full_seconds,
            )
            day = Day(plan, outages, stack)
            began = time.monotonic()
            for number, step in enumerate(day.steps(), 1):
                say(f"{number:2}  {await _timed(step)}")
                await day.breathe()
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

    def __init__(self, plan: Plan, outages: Outages, stack: AsyncExitStack) -> None:
        """``stack`` ends what a step leaves running, the load above all."""
        self._plan = plan
        self._outages = outages
        self._shift = outages.shift
        self._world: World = outages.shift.world
        self._load = outages.shift.load
        self._alerts = outages.alerts
        self._stack = stack
        self._loading = AsyncExitStack()
        self._is_loaded = False

    def steps(self) -> list[Step]:
        """Return the day, in order."""
        outages, plan = self._outages, self._plan
        watch: list[Step] = [("Prometheus watches", self.watch)]
        in_time: list[Step] = [("the token is replaced a day ahead", outages.replace_token)]
        late: list[Step] = [("the token ends, and is replaced late", outages.outlive_token)]
        return [
            ("a worker starts", self.start),
            *(watch if plan.has_prometheus else []),
            ("users begin to react", self.begin),
            ("SIGHUP: two channels more, one less", self.change_list),
            ("SIGHUP: the one is back", self.change_back),
            ("the token is refused, after rotation", outages.refuse_token),
            ("the proxy restarts", outages.restart_proxy),
            ("Redis restarts, its data kept", outages.restart_redis),
            ("Redis is away", outages.lose_redis),
            *(in_time if plan.are_tokens_short else []),
            ("kill -9, and a new worker", self.kill),
            ("Redis is full", outages.fill_redis),
            *(late if plan.are_tokens_short else []),
            ("what is owed is repaid", self.repay),
            ("SIGTERM, and a new worker", self.replace),
            ("users go; SIGTERM", self.end),
            ("tally verify --json", self.verify),
        ]

    async def start(self) -> str:
        """Start a worker on channels with a past; PubNub wants a token, and this one ends soon."""
        for room in ROOMS:
            self._world.add_past(self._plan.past, OLD, room)
        self._shift.list_channels(ROOMS)
        self._shift.grant(LAST_DAY_MINUTES)
        await self._shift.start()
        await self._shift.become_true(ROOMS)
        past = f"{self._plan.past:,} earlier reactions in each of {len(ROOMS)} channels"
        return f"ready, through a proxy; {past}"

    async def watch(self) -> str:
        """Start a Prometheus with the project's alerts, in which time passes faster."""
        rules = sped_up(RULES.read_text(encoding="utf-8"), TIMES_FASTER)
        folder = self._world.folder / "prometheus"
        prometheus = Prometheus(folder, {"tally": [self._shift.address]}, rules)
        self._alerts.prometheus = await self._stack.enter_async_context(prometheus)
        await wait_until(prometheus.is_scraping)
        return f"scrapes every second; deploy/prometheus/alerts.yml, {TIMES_FASTER} times as fast"

    async def begin(self) -> str:
        """Let users act from now on, the whole day."""
        await self._stack.enter_async_context(self._loading)
        await self._loading.enter_async_context(self._load.steady(self._plan.per_second))
        self._is_loaded = True
        acts, began = self._load.acts, time.monotonic()
        await self.breathe()
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

    async def kill(self) -> str:
        """End the worker without a chance to do anything more; start another.

        Somebody has put a token of a minute in its place.
        """
        alerts = ("TallyDown", "TallyNamesUncovered")
        await self._shift.worker.killed()
        fired = await self._alerts.fire(*alerts)
        if self._plan.are_tokens_short:
            self._shift.grant(SHORT_MINUTES)
        await self._shift.start()
        cleared = await self._alerts.clear(*alerts)
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
        self._is_loaded = False
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

    async def breathe(self) -> None:
        """Let the load go on for a while, if it is on."""
        if self._is_loaded:
            await asyncio.sleep(self._plan.breath_seconds)

    def gaps(self) -> str:
        """Say what was owed this day, by cause."""
        assert not self._shift.gaps()["redis_went_back"], "Redis kept all, and the worker doubts it"
        gaps = [f"{count} {cause}" for cause, count in self._shift.gaps().items()]
        return f"marks, all repaid: {', '.join(gaps)}"

    async def _probed(self, line: str) -> str:
        return f"{line}; {await self._shift.probe()}"

    async def _have_their_past(self) -> bool:
        keys = [KEYS.counts(room, MESSAGE) for room in ADDED]
        counts = [await self._world.redis.hget(key, f"reaction:{OLD}") for key in keys]
        return counts == [str(self._plan.past)] * len(ADDED)
