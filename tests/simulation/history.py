"""One seed is one history: acts drawn at random, then calm, then the comparison with the truth."""

import asyncio
import gc
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from logging import DEBUG
from random import Random
from typing import Any, Final
from unittest.mock import patch

import structlog

from reaction_tally.keys import RANKED_ABOVE
from tests.ranked import ranked_above
from tests.simulation.acts import Act, PubNubActs, RedisActs
from tests.simulation.faults import HIDDEN, WORLDLY, rates
from tests.simulation.loop import MACHINE, START, VirtualLoop
from tests.simulation.machine import Machine
from tests.simulation.world import DAY_TICKS, HOUR, KEYS, WorkerConfig, World
from worker.reconciliation import repair_queue
from worker.service import parts, worker
from worker.source.backoff import Backoff
from worker.store import entries

ROOMS: Final = ("r.a", "r.b", "r.c")
WITNESS: Final = "r.w"
"""A channel that PubNub lists as long as it lists anything, so that rooms may be emptied."""
USERS: Final = ("ana", "ben", "cy", "dee")
GROUP: Final = "g"
REPAIR_SECONDS: Final = HOUR / 2
"""How long the workers' own repairs may take in calm."""
LONGEST_REPAIR_SECONDS: Final = 26 * HOUR
"""How long if faults had no sign: what was refused is tried again within a day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Constants of the worker that a history may change."""

    repairs: int = 4
    """Repairs at once. Each is a task, and histories have few channels and many starts."""
    heartbeat_seconds: float = worker.HEARTBEAT_SECONDS
    piece_entries: int = entries.PIECE_ENTRIES
    piece_messages: int = entries.PIECE_MESSAGES
    ranked_above: int = RANKED_ABOVE

    @classmethod
    def drawn(cls, random: Random) -> "Sizes":
        """Draw them. Long idle times are mostly heartbeats; short pieces make looks resumable."""
        sizes = cls(
            heartbeat_seconds=random.choice((worker.HEARTBEAT_SECONDS, 60.0, 60.0)),
            ranked_above=random.choice((1, 3, 8)),
        )
        if random.random() < 0.3:
            return replace(sizes, piece_entries=3, piece_messages=2)
        return sizes


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
    late: list[str] = field(default_factory=list)
    """What the workers should have repaired sooner; without what waits for a person."""
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
    reached: Counter[str] = field(default_factory=Counter)
    """Interesting states, and how often."""
    story: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [self.broken, *self.after, *(f"still owes: {line}" for line in self.still_owed)]
        parts += [f"late: {line}" for line in self.late]
        parts += [f"unrepaired: {line}" for line in self.unrepaired]
        return f"seed {self.seed}: " + ("; ".join(filter(None, parts)) or "right")

    @property
    def is_right(self) -> bool:
        """Whether every invariant held, nothing differs at the end, and repairs were in time."""
        wrong = self.broken, self.after, self.still_owed, self.late, self.unrepaired
        return not any(wrong)

    @property
    def unrepaired(self) -> list[str]:
        """What differs after the workers' own repairs, if they should have repaired everything."""
        return self.before if self.is_visible and self.is_repaired and not self.forced else []


class History:
    """Draws what happens in one world."""

    def __init__(self, world: World, random: Random, faults: frozenset[str]) -> None:
        self._world = world
        self._random = random
        self._faults = faults
        self._messages = [str(17_500_000_000_000_000 + 2 * n) for n in range(random.randint(1, 3))]
        self._rooms = ROOMS[: random.randint(1, 3)]
        self._has_witness = random.random() < 0.8
        world.channels = (*self._rooms, WITNESS) if self._has_witness else self._rooms
        self._floor = random.choice((20, 2))
        self._full_seconds = random.choice((604_800, 86_400))
        world.oracle.prune_floor = self._floor
        self._acts: dict[str, tuple[float, Act]] = {
            "add": (40, self._add),
            "remove": (22, self._remove),
            "publish": (3, self._publish),
            "kill": (5, self._kill),
            "stop": (2, self._stop),
            "suspend": (2, self._suspend),
            "crash_loop": (1, self._crash),
            "hangup": (2, self._hang_up),
            "overflow": (2, self._overflow),
            "silent": (4, self._silent),
            "configuration": (2, self._configure),
            "reload": (3, self._reload),
            **RedisActs(world, random).all,
            **PubNubActs(world, random).all,
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
        if self._has_witness:
            world.add(WITNESS, self._messages[0], "+", "wim")
        for _ in range(random.randint(30, 80)):
            await asyncio.sleep(self._pause())
            (kind,) = random.choices(self._kinds, self._weights)
            world.statistics.acts += 1
            world.statistics.kinds[kind] += 1
            if watched := self._acts[kind][1]():
                await asyncio.sleep(watched)

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
        if "unlisted" in self._faults and random.random() < 0.3:
            self._crowd()
        self._workers = ("one", "two") if random.random() < 0.3 else ("one",)
        config = self._draw_config()
        for name in self._workers:
            world.configs[name] = config
            world.later(random.uniform(0, 30) if has_history else 0, self._start, name)

    def _draw_config(self) -> WorkerConfig:
        world, random = self._world, self._random
        draw = random.random()
        config = WorkerConfig(
            world.channels, prune_floor=self._floor, full_seconds=self._full_seconds
        )
        if draw < 0.15:
            return replace(config, names=("r.*",))
        if draw < 0.3:
            return replace(config, names=(), groups=(GROUP,))
        return replace(config, per_subscription=random.choice((50, 50, 1, 2)))

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
        place = random.choice(self._rooms), random.choice(self._messages)
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

    def _crowd(self) -> None:
        """Let many have reacted in one channel, over days: a round reads only some of them."""
        world, random = self._world, self._random
        channel, message = random.choice(self._rooms), random.choice(self._messages)
        for number in range(40):
            at = world.state.time.now() - random.randint(0, 7 * DAY_TICKS)
            world.add(channel, message, "+", f"user{number}", published=False, at=at & ~1)

    def _remove(self, *, published: bool = True) -> None:
        channel = self._random.choice(self._rooms)
        if actions := self._world.state.actions(channel):
            self._world.remove(channel, self._random.choice(actions), published=published)

    def _silent(self) -> None:
        self._random.choice((self._add, self._remove))(published=False)

    def _publish(self) -> None:
        self._world.burst(self._random.choice(self._rooms), self._random.randint(1, 3))

    def _overflow(self) -> None:
        """Publish about as much as an answer holds; or more than that, many times in a row."""
        channel = self._random.choice(self._rooms)
        if self._random.random() < 0.2:
            self._flood(channel, 8)
            return
        for _ in range(self._random.randint(0, 3)):
            self._random.choice((self._add, self._remove))()
        self._world.burst(channel, self._random.randint(95, 110))

    def _flood(self, channel: str, times: int) -> None:
        self._add()
        self._world.burst(channel, 110)
        if times:
            self._world.later(self._random.uniform(0.05, 0.5), self._flood, channel, times - 1)

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

    def _crash(self) -> None:
        """Let a worker end every few seconds for a while, and start again at once."""
        if name := self._one():
            self._world.tell(f"{name} begins to crash")
            self._crash_again(name, self._random.randint(10, 30))

    def _crash_again(self, name: str, times: int) -> None:
        world, random = self._world, self._random
        world.kill(name)
        world.later(random.uniform(0.01, 1), self._start, name)
        if times:
            world.later(random.uniform(1, 8), self._crash_again, name, times - 1)

    def _hang_up(self) -> None:
        """Restart a worker, and send it SIGHUP at its start."""
        if name := self._one():
            world, random = self._world, self._random
            world.kill(name)
            world.start(name)
            world.later(random.choice((0, 0.001, 0.02, 2)), self._reload)

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
            config = replace(config, names=names)
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
    longest = REPAIR_SECONDS if outcome.is_visible else LONGEST_REPAIR_SECONDS
    outcome.is_repaired = await world.is_repaired(longest)
    outcome.is_visible &= not world.oracle.has_hidden_outage
    outcome.late = [line for name, line in world.owed().items() if name not in world.notes.refused]
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
    world.oracle.check_everything()
    if world.owed() and not await world.is_repaired(LONGEST_REPAIR_SECONDS):
        outcome.still_owed = [*world.owed().values()]


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
        world.oracle.expects = faults
        await History(world, random, faults).act()
        if live_only:
            await world.calm()
            await asyncio.sleep(300)
            outcome.before = world.differences()
        else:
            await finish(world, outcome)

    sizes = Sizes.drawn(Random(f"{seed} sizes"))
    world = played(seed, play, rates(random, faults), outcome, sizes=sizes, tells=tells)
    tally = world.statistics
    outcome.acts, outcome.kills, outcome.stops = tally.acts, tally.kills, tally.stops
    outcome.redis_faults, outcome.suspensions = tally.redis_faults, tally.suspensions
    outcome.events, outcome.wrongly = world.state.published, world.oracle.wrongly
    outcome.steps, outcome.story = world.loop.steps, world.story
    outcome.reached = world.notes.reached
    outcome.requests, outcome.calls = world.pubnub.requests, world.server.calls
    return outcome


def played(
    seed: int | str,
    play: Callable[[World], Coroutine[Any, Any, None]],
    faults: Mapping[str, float],
    outcome: Outcome,
    *,
    after_the_hour: float | None = None,
    sizes: Sizes = Sizes(),
    tells: bool = False,
) -> World:
    """Play a history in a world of its own; write an error into the outcome."""
    loop = VirtualLoop(Random(f"{seed} order"))
    begins = Random(f"{seed} start").uniform(0, HOUR) if after_the_hour is None else after_the_hour
    loop.move(HOUR - START % HOUR + begins)
    world = World(seed, loop, faults, tells=tells)
    world.oracle.ranked_above = sizes.ranked_above

    async def whole() -> None:
        try:
            await play(world)
        finally:
            await world.close()

    with surroundings(world, seed, tells=tells), resized(sizes):
        begun = loop.time()
        try:
            loop.run(whole())
        except Exception as error:
            outcome.broken = f"{type(error).__name__}: {error}"
        outcome.virtual_seconds = loop.time() - begun
    return world


@contextmanager
def resized(sizes: Sizes) -> Iterator[None]:
    """Let the worker have other sizes."""
    with (
        patch.object(repair_queue, "REPAIRS", sizes.repairs),
        patch.object(worker, "HEARTBEAT_SECONDS", sizes.heartbeat_seconds),
        patch.object(entries, "PIECE_ENTRIES", sizes.piece_entries),
        patch.object(entries, "PIECE_MESSAGES", sizes.piece_messages),
        ranked_above(sizes.ranked_above),
    ):
        yield


@contextmanager
def surroundings(world: World, seed: int | str, *, tells: bool) -> Iterator[None]:
    """Let the seed decide what the worker draws; write its log into the story."""
    jitter = Random(f"{seed} jitter")
    configured = structlog.get_config()

    def told(_logger: object, level: str, entry: Any) -> Any:
        event = entry.pop("event")
        if isinstance(machine := MACHINE.get(), Machine):
            world.notes.log(machine, event, entry)
        if tells:
            facts = " ".join(f"{name}={value}" for name, value in entry.items())
            world.tell(f"    {level} {event} {facts}")
        raise structlog.DropEvent

    structlog.configure(
        processors=[told], wrapper_class=structlog.make_filtering_bound_logger(DEBUG)
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
