"""One seed is one history: acts drawn at random, then calm, then the comparison with the truth."""

import asyncio
import gc
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Final
from unittest.mock import patch

import structlog

from tests.simulation.loop import START, VirtualLoop
from tests.simulation.world import DAY_TICKS, HOUR, KEYS, WorkerConfig, World
from worker.emulator import FAULT_NAMES, OUTAGE_KINDS
from worker.service import parts, worker
from worker.source.backoff import Backoff

CHANNELS: Final = ("r.a", "r.b", "r.c")
USERS: Final = ("ana", "ben", "cy", "dee")
GROUP: Final = "g"
RARE: Final = frozenset({"forbidden", "throttle", "server_error", "bad_json", "drop", "latency"})
WORLDLY: Final = (
    *("history", "kill", "stop", "suspend", "redis", "pubnub"),
    *("overflow", "silent", "configuration", "reload"),
)
"""What else may go wrong, beside the emulator's faults."""
ALL: Final = frozenset((*FAULT_NAMES, *WORLDLY))
HIDDEN: Final = frozenset(
    {
        *("lost", "unpublished", "silent", "partial", "empty", "empty_channel"),
        *("twin", "readd", "tie", "configuration"),
    }
)
"""Faults without a sign: only a later pass over the list can find what they did.

A tie is one of them if a user adds again what was removed a moment ago, with the same timetoken.
"""
VISIBLE: Final = ALL - HIDDEN
"""Faults that show when they strike: the worker repairs what they did."""


@dataclass(slots=True)
class Outcome:
    """How one history ended."""

    seed: int
    broken: str = ""
    is_visible: bool = False
    """Whether every gap shows: then nothing may differ after the worker's repairs."""
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    forced: str = ""
    """Where the final reconcile had to be forced: how much it would have pruned."""
    is_repaired: bool = True
    """Whether the workers repaid everything by themselves."""
    still_owed: list[str] = field(default_factory=list)
    """What is owed though it was reconciled in calm."""
    acts: int = 0
    events: int = 0
    kills: int = 0
    stops: int = 0
    suspensions: int = 0
    redis_faults: int = 0
    steps: int = 0
    requests: int = 0
    calls: int = 0
    virtual_seconds: float = 0.0
    wrongly: Counter[str] = field(default_factory=Counter)
    story: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [self.broken, *self.after, *(f"still owes: {line}" for line in self.still_owed)]
        parts += [f"unrepaired: {line}" for line in self.unrepaired]
        return f"seed {self.seed}: " + ("; ".join(filter(None, parts)) or "right")

    @property
    def is_right(self) -> bool:
        """Whether every invariant held, and nothing differs at the end."""
        return not (self.broken or self.after or self.still_owed or self.unrepaired)

    @property
    def unrepaired(self) -> list[str]:
        """What differs after the workers' own repairs, if they should have repaired everything."""
        return self.before if self.is_visible and self.is_repaired and not self.forced else []


def rates(random: Random, names: frozenset[str]) -> dict[str, float]:
    """Return a rate for each fault: some of them strike often."""
    chosen = {}
    for name in FAULT_NAMES:
        little, much = (0.002, 0.03) if name in RARE else (0.02, 0.35)
        rate = (
            random.uniform(little, much)
            if random.random() < 0.2
            else little * random.uniform(0.5, 2)
        )
        if name in names:
            chosen[name] = rate
    return chosen


class History:
    """Draws what happens in one world."""

    def __init__(self, world: World, random: Random, faults: frozenset[str]) -> None:
        self._world = world
        self._random = random
        self._faults = faults
        self._messages = [str(17_500_000_000_000_000 + 2 * n) for n in range(random.randint(1, 3))]
        world.channels = CHANNELS[: random.randint(1, 3)]
        self._acts: dict[str, tuple[float, Callable[[], None]]] = {
            "add": (40, self._add),
            "remove": (22, self._remove),
            "publish": (3, self._publish),
            "kill": (5, self._kill),
            "stop": (2, self._stop),
            "suspend": (2, self._suspend),
            "redis": (5, self._redis),
            "pubnub": (3, self._pubnub),
            "overflow": (2, self._overflow),
            "silent": (4, self._silent),
            "configuration": (2, self._configure),
            "reload": (3, self._reload),
        }
        kinds = [name for name in self._acts if name not in WORLDLY or name in faults]
        self._kinds = kinds
        self._weights = [
            self._acts[name][0] * (random.choice((0.3, 1, 1, 3)) if name in WORLDLY else 1)
            for name in kinds
        ]

    async def act(self) -> None:
        """Let everything happen."""
        world, random = self._world, self._random
        self._begin()
        await asyncio.sleep(0 if "history" in self._faults else 10)
        for _ in range(random.randint(30, 80)):
            await asyncio.sleep(self._pause())
            (kind,) = random.choices(self._kinds, self._weights)
            world.statistics.acts += 1
            world.statistics.kinds[kind] += 1
            self._acts[kind][1]()

    def _begin(self) -> None:
        world, random = self._world, self._random
        if random.random() < 0.3:
            world.skew = random.uniform(-5, 5)
        world.pubnub.slowness = random.choice((0, 0, 0.01, 0.05))
        world.server.slowness = random.choice((0, 0, 0.003))
        world.state.groups.add(GROUP, world.channels)
        has_history = "history" in self._faults
        for _ in range(random.choice((0, 3, 8)) if has_history else 0):
            self._old()
        self._workers = ("one", "two") if random.random() < 0.3 else ("one",)
        config = self._draw_config()
        for name in self._workers:
            world.configs[name] = config
            world.later(random.uniform(0, 30) if has_history else 0, self._start, name)

    def _draw_config(self) -> WorkerConfig:
        world, random = self._world, self._random
        draw = random.random()
        floor = random.choice((20, 20, 20, 2))
        if draw < 0.15:
            return WorkerConfig(("r.*",), prune_floor=floor)
        if draw < 0.3:
            return WorkerConfig((), (GROUP,), prune_floor=floor)
        return WorkerConfig(
            world.channels, per_subscription=random.choice((50, 50, 1, 2)), prune_floor=floor
        )

    def _pause(self) -> float:
        draw = self._random.random()
        if draw < 0.55:
            return self._random.uniform(0.001, 1.0)
        if draw < 0.9:
            return self._random.uniform(0.5, 20)
        if draw < 0.985:
            return self._random.uniform(20, 200)
        return self._random.uniform(200, 1500)

    # --- acts ------------------------------------------------------------------------------------

    def _place(self) -> tuple[str, str, str, str]:
        random = self._random
        place = random.choice(self._world.channels), random.choice(self._messages)
        return *place, random.choice("+-"), random.choice(USERS)

    def _add(self, *, published: bool = True) -> None:
        world = self._world
        self._world.add(*self._place(), published=published)
        if self._random.random() < 0.1:
            at = self._random.randint(2, 30)
            for _ in range(at):
                world.add(*self._place())

    def _old(self) -> None:
        place = self._place()
        at = self._world.state.time.now() - self._random.randint(0, 40 * DAY_TICKS)
        self._world.add(*place, published=False, at=at & ~1)

    def _remove(self, *, published: bool = True) -> None:
        channel = self._random.choice(self._world.channels)
        if actions := self._world.state.actions(channel):
            self._world.remove(channel, self._random.choice(actions), published=published)

    def _silent(self) -> None:
        self._random.choice((self._add, self._remove))(published=False)

    def _publish(self) -> None:
        self._world.burst(self._random.choice(self._world.channels), self._random.randint(1, 3))

    def _overflow(self) -> None:
        channel = self._random.choice(self._world.channels)
        for _ in range(self._random.randint(0, 3)):
            self._random.choice((self._add, self._remove))()
        self._world.burst(channel, self._random.randint(95, 110))

    def _start(self, name: str) -> None:
        self._world.start(name)

    def _back(self, name: str) -> None:
        """Start a worker again: usually soon, sometimes after more than PubNub's cache holds."""
        draw, random = self._random.random(), self._random
        away = (
            random.uniform(0.01, 10)
            if draw < 0.6
            else random.uniform(10, 400)
            if draw < 0.85
            else 1500 * draw
        )
        self._world.later(away, self._start, name)

    def _one(self) -> str | None:
        running = [name for name in self._world.processes if self._world.processes[name].is_running]
        return self._random.choice(running) if running else None

    def _kill(self) -> None:
        if name := self._one():
            if self._random.random() < 0.3:
                self._world.kill(name)
            else:
                self._world.kill_at(name, "any", self._random.randint(1, 25))
            self._back(name)

    def _stop(self) -> None:
        if name := self._one():
            self._world.stop(name)
            self._back(name)

    def _suspend(self) -> None:
        if name := self._one():
            self._world.suspend(name, self._random.choice((5.0, 70.0, 400.0, 2 * HOUR)))

    def _redis(self) -> None:
        world, random = self._world, self._random
        draw = random.random()
        seconds = random.choice((0.05, 0.5, 5.0, 100.0))
        if draw < 0.25:
            world.cut_redis(seconds)
        elif draw < 0.4:
            world.restart_redis(seconds)
        elif draw < 0.7:
            skew = random.uniform(-5, 5) if random.random() < 0.3 else None
            world.fail_over(
                random.choice((0.01, 0.1, 1.0, 10.0)), random.choice((0.0, 0.0, 2.0)), skew
            )
        elif draw < 0.85:
            copied = world.copy()
            world.later(random.uniform(60, 2 * HOUR), world.put_back, copied, "is an older copy")
        else:
            world.fill_redis(seconds)

    def _pubnub(self) -> None:
        world, random = self._world, self._random
        seconds = random.choice((1.0, 30.0, 200.0, 1000.0))
        if random.random() < 0.5:
            world.break_pubnub(random.choice(OUTAGE_KINDS), seconds)
        else:
            world.forbid(random.choice(world.channels), seconds)

    def _configure(self) -> None:
        """Restart the workers with other names; or let a channel join or leave its group."""
        world, random = self._world, self._random
        if random.random() < 0.4:
            channel = random.choice(world.channels)
            world.oracle.exempt.add(channel)
            if channel in world.state.groups.channels(GROUP):
                world.tell(f"{channel} leaves the group")
                world.state.groups.remove(GROUP, [channel])
            else:
                world.tell(f"{channel} joins the group")
                world.state.groups.add(GROUP, [channel])
            return
        config = self._draw_part()
        for name in self._workers:
            world.configs[name] = config
            if name in world.processes:
                world.stop(name)
                self._back(name)

    def _draw_part(self) -> WorkerConfig:
        random, config = self._random, self._draw_config()
        if config.names and config.names != ("r.*",) and random.random() < 0.4:
            names = tuple(random.sample(config.names, random.randint(1, len(config.names))))
            config = WorkerConfig(names, (), config.per_subscription, config.prune_floor)
        return config

    def _reload(self) -> None:
        """Change the names of a running worker; a list can have channels, and here a group."""
        for name in self._workers:
            if self._random.random() < 0.8:
                before = self._world.configs[name]
                wanted = self._draw_part()
                self._world.reload(name, replace(wanted, per_subscription=before.per_subscription))


async def finish(world: World, outcome: Outcome) -> None:
    """Let calm come, wait until nothing is owed, reconcile once more, compare."""
    await world.calm()
    outcome.is_repaired = await world.is_repaired()
    # A channel under a wildcard is unknown before its first event.
    # A channel that is not followed is left alone.
    known = world.keyspace.smembers(KEYS.channels) & world.followed()
    outcome.before = [line for line in world.differences() if line.partition(" ")[0] in known]
    world.check()
    config = next(iter(world.configs.values()))
    reports = await world.reconcile(world.channels, config)
    refused = [report for report in reports if report.refused]
    if refused:
        outcome.forced = "; ".join(
            f"{r.channel}: {r.refused} of {r.entries} entries" for r in refused
        )
        await world.reconcile(world.channels, config, force=True)
    outcome.after = world.differences()
    if world.owed() and not await world.is_repaired(3 * HOUR):
        outcome.still_owed = world.owed()


def simulate(
    seed: int, faults: frozenset[str], *, live_only: bool = False, tells: bool = False
) -> Outcome:
    """Play one seed.

    ``live_only`` leaves out all that repairs, and the check at the end.
    """
    random = Random(f"{seed} history")
    outcome = Outcome(seed, is_visible=not (live_only or faults & HIDDEN))

    async def play(world: World) -> None:
        world.live_only = live_only
        await History(world, random, faults).act()
        if live_only:
            await world.calm()
            await asyncio.sleep(300)
            outcome.before = world.differences()
        else:
            await finish(world, outcome)

    world = played(seed, play, rates(random, faults), outcome, tells=tells)
    tally = world.statistics
    outcome.acts, outcome.kills, outcome.stops = tally.acts, tally.kills, tally.stops
    outcome.redis_faults, outcome.suspensions = tally.redis_faults, tally.suspensions
    outcome.events, outcome.wrongly = world.state.published, world.oracle.wrongly
    outcome.steps, outcome.story = world.loop.steps, world.story
    outcome.requests, outcome.calls = world.pubnub.requests, world.server.calls
    return outcome


def played(
    seed: int | str,
    play: Callable[[World], Coroutine[Any, Any, None]],
    faults: Mapping[str, float],
    outcome: Outcome,
    *,
    after_the_hour: float | None = None,
    tells: bool = False,
) -> World:
    """Play a history in a world of its own; write an error into the outcome."""
    loop = VirtualLoop(Random(f"{seed} order"))
    begins = Random(f"{seed} start").uniform(0, HOUR) if after_the_hour is None else after_the_hour
    loop.move(HOUR - START % HOUR + begins)
    world = World(seed, loop, faults, tells=tells)

    async def whole() -> None:
        try:
            await play(world)
        finally:
            await world.close()

    with surroundings(world, seed, tells=tells):
        begun = loop.time()
        try:
            loop.run(whole())
        except Exception as error:
            outcome.broken = f"{type(error).__name__}: {error}"
        outcome.virtual_seconds = loop.time() - begun
    return world


@contextmanager
def surroundings(world: World, seed: int | str, *, tells: bool) -> Iterator[None]:
    """Let the seed decide what the worker draws; write its log into the story."""
    jitter = Random(f"{seed} jitter")
    configured = structlog.get_config()

    def told(_logger: object, level: str, entry: Any) -> Any:
        event = entry.pop("event")
        world.tell(
            f"    {level} {event} " + " ".join(f"{name}={value}" for name, value in entry.items())
        )
        raise structlog.DropEvent

    level = 10 if tells else 50
    structlog.configure(
        processors=[told], wrapper_class=structlog.make_filtering_bound_logger(level)
    )
    is_collecting = gc.isenabled()
    gc.disable()  # when garbage is collected must not depend on what ran before
    try:
        with (
            patch.object(parts, "new_backoff", lambda: Backoff(jitter)),
            patch.object(worker, "new_backoff", lambda: Backoff(jitter)),
            patch.object(worker, "new_random", lambda: jitter),
        ):
            yield
    finally:
        structlog.configure(**configured)
        if is_collecting:
            gc.enable()
