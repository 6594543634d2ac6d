"""A day in the life of a worker, in two minutes: all that happens to it, one after the other, under load.

Every reaction is counted in the end, and nobody is asked to repair anything: what a step makes the worker miss, it
marks and repays by itself.
"""

import asyncio
import json
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.chaos.comparison import broken_tallies, differences, strangers
from tests.deploy.prometheus_server import Prometheus, hurried
from tests.drill.load import Load
from tests.drill.pages import figures, is_ready, total
from tests.drill.staged import staged
from tests.drill.stops import NEVER
from tests.end_to_end.processes import KEYS, MESSAGE, Child, Stage, wait_until
from tests.redis_server import MortalServer, free_port

ALERTS: Final = Path(__file__).parents[2] / "deploy" / "prometheus" / "alerts.yml"
ROOMS: Final = ("lobby", "garden", "yard")
ADDED: Final = ("attic", "cellar")
LEAVES: Final = "yard"
OLD: Final = "🕰"
"""What everybody's reactions of before the worker's time are."""
APPLY_WAIT_SECONDS: Final = 60

Say = Callable[[str], None]
Step = tuple[str, Callable[[], Awaitable[str]]]
"""What is done, and what does it and returns what was seen."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of everything."""

    seed: int
    per_second: float = 300
    """Acts of users a second, over all channels."""
    past: int = 600
    """Reactions of each channel from before it is followed.

    Users have 120 more at most that come and go: whatever of them is missed is less than a fifth of all, which is what
    a reconcile may take away without asking a person.
    """
    breath_seconds: float = 5
    """How long the load is let alone between two events."""
    settle_seconds: float = 5
    """``TALLY_SETTLE_SECONDS``, by default 60: what is owed is repaid the sooner."""
    has_prometheus: bool = True


async def run(plan: Plan, folder: Path, say: Say) -> None:
    """Live through the day; say a line a step. Whatever was started has ended afterwards.

    Raises:
        AssertionError: something did not hold; the sentence says what.
    """
    server = MortalServer(folder / "redis")
    try:
        async with staged(server, folder, plan.seed) as stage, AsyncExitStack() as stack:
            load = Load(stage.state, plan.seed, ROOMS)
            day = Day(plan, stage, server, load, stack)
            began = time.monotonic()
            for number, (title, step) in enumerate(day.steps(), 1):
                started = time.monotonic()
                try:
                    seen = await step()
                except AssertionError as error:
                    error.add_note(f"in step {number}: {title}")
                    raise
                say(f"{number:2}  {title:37} {time.monotonic() - started:5.1f} s  {seen}")
            say(f"{time.monotonic() - began:.0f} s; {load.acts:,} acts of users; {day.gaps()}")
    finally:
        server.destroy()


class Day:
    """What happens, step by step."""

    def __init__(
        self, plan: Plan, stage: Stage, server: MortalServer, load: Load, stack: AsyncExitStack
    ) -> None:
        """``stack`` ends what a step leaves running, the load above all."""
        self._plan = plan
        self._stage = stage
        self._server = server
        self._load = load
        self._stack = stack
        self._loading = AsyncExitStack()
        self._worker: Child | None = None
        self._prometheus: Prometheus | None = None
        self._token = stage.folder / "token"
        self._list = stage.folder / "channels"
        self._probes = 0
        self._address = f"127.0.0.1:{free_port()}"
        stage.settings |= {
            "PUBNUB_AUTH_TOKEN_FILE": str(self._token),
            "TALLY_CHANNELS": "",
            "TALLY_CHANNELS_FILE": str(self._list),
            "TALLY_CHANNELS_PER_SUBSCRIPTION": "2",
            "TALLY_SETTLE_SECONDS": str(plan.settle_seconds),
            "TALLY_RECONCILE_SECONDS": NEVER,
            "TALLY_HTTP": self._address,
        }

    def steps(self) -> list[Step]:
        """Return the day, in order."""
        watching: list[Step] = (
            [("Prometheus looks on", self.watch)] if self._plan.has_prometheus else []
        )
        return [
            ("a worker starts", self.start),
            *watching,
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

    async def start(self) -> str:
        """Start a worker where there is a past, and a token is wanted."""
        self._remember_the_past(ROOMS)
        self._follow(ROOMS)
        self._rotate("first")
        await self._start()
        await self._true(ROOMS)
        return f"ready; {self._plan.past:,} reactions of before in each of {len(ROOMS)} channels are counted"

    async def watch(self) -> str:
        """Start a Prometheus with the project's alerts, which wait a second instead of minutes."""
        rules = hurried(ALERTS.read_text(encoding="utf-8"))
        prometheus = Prometheus(
            self._stage.folder / "prometheus", {"tally": [self._address]}, rules
        )
        self._prometheus = await self._stack.enter_async_context(prometheus)
        await wait_until(prometheus.is_scraping, APPLY_WAIT_SECONDS)
        return "scrapes every second; deploy/prometheus/alerts.yml, each `for:` shortened to 1 s"

    async def begin(self) -> str:
        """Let users act from now on, the whole day."""
        await self._stack.enter_async_context(self._loading)
        await self._loading.enter_async_context(self._load.steady(self._plan.per_second))
        acts, began = self._load.acts, time.monotonic()
        await asyncio.sleep(self._plan.breath_seconds)
        rate = (self._load.acts - acts) / (time.monotonic() - began)
        return f"{rate:.0f} acts a second; {await self._probe()}"

    async def change_list(self) -> str:
        """Follow two channels that have a past, and leave one."""
        self._remember_the_past(ADDED)
        self._load.channels.remove(LEAVES)
        await self._true([LEAVES])
        told = await self._reload([*(room for room in ROOMS if room != LEAVES), *ADDED])
        assert (told["added"], told["removed"]) == (len(ADDED), 1), told
        self._load.channels += ADDED
        await wait_until(self._have_their_past, APPLY_WAIT_SECONDS, what=self._words)
        seen = f"reactions of before ({self._plan.past:,} each) and after are counted; {await self._probe()}"
        await self._breathe()
        return seen

    async def change_back(self) -> str:
        """Follow the one again that users went on in meanwhile, unheard."""
        for _ in range(self._plan.past // 4):
            self._load.act(LEAVES)
        told = await self._reload([*ROOMS, *ADDED])
        assert (told["added"], told["removed"]) == (1, 0), told
        await self._true([LEAVES])
        self._load.channels.append(LEAVES)
        await self._breathe()
        return f"{self._plan.past // 4} acts that nobody heard are made good, removals too; {await self._probe()}"

    async def rotate_token(self) -> str:
        """Refuse the token that is in use, once there is another in the file."""
        worker, gaps = self._running, self._gaps()
        self._rotate("second")
        await wait_until(
            lambda: worker.entries("token_renewed"), APPLY_WAIT_SECONDS, what=self._words
        )
        seen = await self._probe()
        told = await figures(worker)
        refused = sum(value for series, value in told.items() if 'status="403"' in series)
        assert self._gaps() == gaps, "who has a token in time has no gap"
        await self._breathe()
        return f"{refused:.0f} answers of 403, then the new one is used, without a gap; {seen}"

    async def restart_redis(self) -> str:
        """End Redis, start it again."""
        worker = self._running
        await self._server.end()
        await wait_until(
            lambda: worker.entries("redis_unavailable"), APPLY_WAIT_SECONDS, what=self._words
        )
        fired = await self._fires("TallyRedisAway")
        await self._server.revive()
        await self._stage.redis.connection_pool.disconnect()  # those to the server that was
        await wait_until(lambda: is_ready(worker), APPLY_WAIT_SECONDS, what=self._words)
        seen = f"{await self._probe()}{fired}{await self._clears('TallyRedisAway')}"
        await self._breathe()
        return seen

    async def kill(self) -> str:
        """End the worker without a chance to do anything more; start another."""
        await self._running.killed()
        fired = await self._fires("TallyDown")
        await self._start()
        seen = f"it goes on from the saved cursors; {await self._probe()}{fired}{await self._clears('TallyDown')}"
        await self._breathe()
        return seen

    async def repay(self) -> str:
        """Wait until the worker has repaid all that it owes; users act all along."""
        await wait_until(self._owes_nothing, 2 * APPLY_WAIT_SECONDS, what=self._words)
        told = await figures(self._running)
        return f"{total(told, 'tally_reconciles_total'):.0f} reconciles of a channel by this worker; nothing is owed"

    async def replace(self) -> str:
        """Stop the worker while users act; start another."""
        took = await self._stop()
        await self._start()
        return f"exit code 0 after {took:.2f} s; {await self._probe()}"

    async def end(self) -> str:
        """Let users go; stop the worker when it has read all they did."""
        await self._loading.aclose()
        await self._probe()
        await wait_until(self._owes_nothing, 2 * APPLY_WAIT_SECONDS, what=self._words)
        fired = await self._fired()  # before the worker is away, which is worth an alert
        return f"exit code 0 after {await self._stop():.2f} s{fired}"

    async def verify(self) -> str:
        """Compare, as an operator does and as only a drill can: with the truth."""
        verify = self._stage.start("verify", "--json")
        await verify.ended(APPLY_WAIT_SECONDS)
        found = json.loads(verify.out or "{}")
        said = verify.out[-3000:] + verify.err[-3000:]
        assert verify.process.returncode == 0, said
        assert found["exact"], said
        channels = [*ROOMS, *ADDED]
        wrong = differences(await self._stage.tallies(), self._stage.emulator.truth())
        wrong += await strangers(self._stage.redis, self._stage.state, channels)
        wrong += await broken_tallies(self._stage.redis)
        assert not wrong, "\n".join(wrong[:20])
        return (
            f"{len(found['discrepancies'])} differences in {found['entries']:,} entries of {found['channels']} "
            "channels; every tally and everybody counted is the emulator's truth"
        )

    def gaps(self) -> str:
        """Say what was owed this day, by cause."""
        return "marks, all repaid: " + ", ".join(
            f"{count} {cause}" for cause, count in self._gaps().items()
        )

    @property
    def _running(self) -> Child:
        assert self._worker
        return self._worker

    async def _start(self) -> None:
        self._worker = worker = self._stage.start("run")
        await wait_until(
            lambda: not worker.is_alive or worker.entries("http_listens"),
            APPLY_WAIT_SECONDS,
            what=self._words,
        )
        assert worker.is_alive, worker.err
        await wait_until(lambda: is_ready(worker), APPLY_WAIT_SECONDS, what=self._words)

    async def _stop(self) -> float:
        """Stop the worker, which must end well; return the seconds it took."""
        asked = time.monotonic()
        self._running.ask(signal.SIGTERM)
        code = await asyncio.to_thread(self._running.process.wait, APPLY_WAIT_SECONDS)
        assert code == 0, self._running.err[-3000:]
        return time.monotonic() - asked

    def _follow(self, channels: Sequence[str]) -> None:
        self._list.write_text("\n".join(channels), encoding="utf-8")

    async def _reload(self, channels: Sequence[str]) -> dict[str, int]:
        """Have the list read again; return what the worker says of it."""
        worker, before = self._running, len(self._running.entries("channels_reloaded"))
        self._follow(channels)
        worker.ask(signal.SIGHUP)
        await wait_until(
            lambda: len(worker.entries("channels_reloaded")) > before,
            APPLY_WAIT_SECONDS,
            what=self._words,
        )
        return worker.entries("channels_reloaded")[-1]

    def _rotate(self, token: str) -> None:
        """Put a token into the file; then let PubNub refuse every other."""
        self._token.write_text(token, encoding="utf-8")
        self._stage.state.demand_token(token)

    def _remember_the_past(self, channels: Sequence[str]) -> None:
        for channel in channels:
            for number in range(self._plan.past):
                self._stage.state.add(
                    channel, MESSAGE, "reaction", OLD, f"old-{number}", published=False
                )

    async def _have_their_past(self) -> bool:
        counts = [
            await self._stage.redis.hget(KEYS.counts(each, MESSAGE), f"reaction:{OLD}")
            for each in ADDED
        ]
        return counts == [str(self._plan.past)] * len(ADDED)

    async def _probe(self) -> str:
        """Let somebody react in every channel that is followed, and see it counted: then all before it was read."""
        began, self._probes = time.monotonic(), self._probes + 1
        who = f"probe-{self._probes}"
        for channel in self._load.channels:
            self._stage.state.add(channel, MESSAGE, "probe", "✔", who)

        async def are_counted() -> bool:
            redis = self._stage.redis
            keys = [KEYS.actions(channel, MESSAGE) for channel in self._load.channels]
            return all([await redis.hexists(key, f"probe:✔:{who}") for key in keys])

        await wait_until(are_counted, APPLY_WAIT_SECONDS, what=self._words)
        return f"probes counted after {time.monotonic() - began:.2f} s"

    async def _true(self, channels: Sequence[str]) -> None:
        """Wait until these channels, in which nobody acts now, are as PubNub has them."""

        async def are_true() -> bool:
            found, truth = await self._stage.tallies(), self._stage.emulator.truth()
            return all(found.get(channel) == truth.get(channel) for channel in channels)

        await wait_until(are_true, APPLY_WAIT_SECONDS, what=self._words)

    async def _owes_nothing(self) -> bool:
        told = await figures(self._running)
        return total(told, "tally_channels_owed") == 0 == told["tally_backfills"]

    async def _breathe(self) -> None:
        await asyncio.sleep(self._plan.breath_seconds)

    async def _fires(self, alert: str) -> str:
        """Wait until an alert fires, if somebody looks on; say so."""
        if not (prometheus := self._prometheus):
            return ""
        began = time.monotonic()
        await wait_until(lambda: _has(prometheus, alert), APPLY_WAIT_SECONDS)
        return f"; {alert} fired after {time.monotonic() - began:.1f} s"

    async def _clears(self, alert: str) -> str:
        """Wait until it does no longer."""
        if not (prometheus := self._prometheus):
            return ""

        async def is_clear() -> bool:
            return not await _has(prometheus, alert)

        await wait_until(is_clear, APPLY_WAIT_SECONDS)
        return ", and cleared"

    async def _fired(self) -> str:
        """Wait until nobody is to be woken any more; say which alerts fired this day, and which still do."""
        if not (prometheus := self._prometheus):
            return ""

        async def are_pages_clear() -> bool:
            return not await prometheus.query('ALERTS{alertstate="firing", severity="page"}')

        await wait_until(are_pages_clear, APPLY_WAIT_SECONDS)
        found = await prometheus.query(
            'count by (alertname) (count_over_time(ALERTS{alertstate="firing"}[1h]))'
        )
        names = sorted(labels["alertname"] for labels, _ in found)
        left = sorted(
            name for name, state in (await prometheus.alerts()).items() if state == "firing"
        )
        return f"; fired today: {', '.join(names)}; no page any more; tickets: {', '.join(left) or 'none'}"

    def _gaps(self) -> Counter[str]:
        return Counter(
            entry["cause"] for child in self._stage.children for entry in child.entries("gap")
        )

    def _words(self) -> str:
        return self._running.err[-3000:]


async def _has(prometheus: Prometheus, alert: str) -> bool:
    return (await prometheus.alerts()).get(alert) == "firing"
