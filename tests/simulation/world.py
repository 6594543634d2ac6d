"""Everything a worker meets: PubNub, Redis, users, kills, cuts and suspensions."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Final

from reaction_tally.keys import Keys, read_action_field
from reaction_tally.operations import read_counts
from tests.chaos.comparison import differences
from tests.simulation.keyspace import Keyspace
from tests.simulation.loop import VirtualLoop
from tests.simulation.notes import Notes
from tests.simulation.oracle import BrokenError, Memory, Oracle
from tests.simulation.process import Process
from tests.simulation.pubnub_twin import IDLE_SECONDS, PubNub
from tests.simulation.redis_twin import Server
from worker.domain.position import Range
from worker.emulator import Identity, State, Truth
from worker.emulator.actions import Action
from worker.emulator.replies import RefusedError
from worker.reconciliation.report import ReconcileOptions, ReconcileReport
from worker.service.commands import COMMAND_TRIES
from worker.service.parts import Parts, build_reconciler
from worker.settings import Settings
from worker.source.names import Names, matches

KEYS: Final = Keys()
SETTLE_SECONDS: Final = 60.0
HOUR: Final = 3600.0
DAY_TICKS: Final = 86400 * 10_000_000

Copy = tuple[Any, Memory]


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """What a worker follows, and some settings."""

    names: tuple[str, ...]
    groups: tuple[str, ...] = ()
    per_subscription: int = 50
    prune_floor: int = 20
    settle_seconds: float = SETTLE_SECONDS
    full_seconds: float = 604_800

    def settings(self) -> Settings:
        """Return the settings of a worker; the others have their defaults."""
        return Settings.model_construct(
            subscribe_key="demo",
            channels=self.names,
            channel_groups=self.groups,
            channels_per_subscription=self.per_subscription,
            prune_floor=self.prune_floor,
            settle_seconds=self.settle_seconds,
            reconcile_full_seconds=self.full_seconds,
        )


@dataclass(slots=True)
class Statistics:
    """What happened, in numbers."""

    acts: int = 0
    kills: int = 0
    stops: int = 0
    suspensions: int = 0
    redis_faults: int = 0
    kinds: Counter[str] = field(default_factory=Counter)


class World:
    """The surroundings of one history."""

    def __init__(
        self,
        seed: int | str,
        loop: VirtualLoop,
        faults: Mapping[str, float] | None = None,
        *,
        tells: bool = False,
    ) -> None:
        def random(use: str) -> Random:
            return Random(f"{seed} {use}")

        self.loop = loop
        self.pubnub_skew = 0.0
        """How far PubNub's clock is ahead, in seconds."""
        self.random = random("world")
        self.state = State(lambda: loop.time() + self.pubnub_skew, random("faults"), faults or {})
        self.notes = Notes(loop.time)
        self.oracle = Oracle(self.state, self.notes)
        self.keyspace = Keyspace(lambda: loop.time() + self.skew, self.oracle)
        self.oracle.keyspace = self.keyspace
        self.oracle.channels_of = self._channels_of
        self.oracle.watch(self.state)
        self.oracle.watch_lists(self.state)
        self.server = Server(self.keyspace, random("redis"), self.notes)
        self.pubnub = PubNub(self.state, random("ways"), self.notes, self.oracle.lies)
        self.processes: dict[str, Process] = {}
        self.configs: dict[str, WorkerConfig] = {}
        self.statistics = Statistics()
        self.story: list[str] = []
        self.ended: list[str] = []
        self.live_only = False
        self.skew = 0.0
        """How far Redis's clock is ahead, in seconds."""
        self._ends: list[Callable[[], None]] = []
        self._tells = tells
        self._refused: set[str] = set()
        self._timers: list[asyncio.TimerHandle] = []
        self.pubnub.open()

    def tell(self, text: str) -> None:
        """Write a line into the story."""
        if self._tells:
            self.story.append(f"{self.loop.time() % 100_000:12.3f}  {text}")

    def later(self, seconds: float, act: Callable[..., None], *args: Any) -> None:
        """Call a function in a while."""
        self._timers.append(self.loop.call_later(seconds, act, *args))

    def until(self, seconds: float, end: Callable[[], None]) -> None:
        """Call a function in a while, and once more when calm comes."""
        self.later(seconds, end)
        self._ends.append(end)

    # --- workers ---------------------------------------------------------------------------------

    def start(self, name: str, config: WorkerConfig | None = None) -> Process:
        """Start a worker, unless it runs."""
        if config:
            self.configs[name] = config
        config = self.configs[name]
        if (running := self.processes.get(name)) and running.is_running:
            return running
        self.tell(f"{name} starts, following {','.join((*config.names, *config.groups))}")
        process = Process(
            name, self.pubnub, self.server, config.settings(), live_only=self.live_only
        )
        self.processes[name] = process
        self._note_start(process)
        process.start()
        assert process.task
        process.task.add_done_callback(lambda task: self._has_ended(name, task))
        return process

    def _note_start(self, process: Process) -> None:
        self.notes.starts(process.machine)
        saved = [
            float(held["saved_at"])
            for key, held in self.keyspace.values.items()
            if key.startswith(KEYS.cursor("")) and "saved_at" in held
        ]
        if saved and max(saved) > self.keyspace.clock() + 1:
            self.notes.note("a cursor of the future")

    def _has_ended(self, name: str, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()):
            self.tell(f"{name} fails: {error!r}")
            self.ended.append(f"{name}: {error!r}")

    def _channels_of(self, names: Names) -> set[str]:
        return {
            *names.channels,
            *(
                name
                for name in self.channels
                if any(matches(wildcard, name) for wildcard in names.wildcards)
            ),
            *(name for group in names.groups for name in self.state.groups.channels(group)),
        }

    def followed(self) -> set[str]:
        """Return the channels that the workers follow."""
        lists = self.configs.values()
        return {
            name for each in lists for name in self._channels_of(Names.of(each.names, each.groups))
        }

    channels: tuple[str, ...] = ("r.a",)

    def kill(self, name: str) -> None:
        """Kill a worker, if it runs."""
        process = self.processes[name]
        if process.is_running:
            self.tell(f"{name} is killed")
            self.statistics.kills += 1
            self.notes.killed(process.machine)
            process.kill()

    def kill_at(self, name: str, command: str, nth: int = 1) -> None:
        """Kill a worker after its nth such command, before the answer arrives."""
        self._at(name, command, nth, lambda: self.kill(name))

    def cut_at(self, name: str, command: str, seconds: float) -> None:
        """Cut Redis off for a while, after a worker's next such command."""
        self._at(name, command, 1, lambda: self.cut_redis(seconds))

    def _at(self, name: str, command: str, nth: int, act: Callable[[], None]) -> None:
        left = nth

        def count(done: str) -> None:
            nonlocal left
            if command in (done, "any"):
                left -= 1
                if left == 0:
                    self.tell(f"{name} has had {done} done")
                    act()

        self.processes[name].machine.on_effect = count

    def stop(self, name: str) -> None:
        """Stop a worker, as an operator does."""
        if self.processes[name].is_running:
            self.tell(f"{name} is stopped")
            self.statistics.stops += 1
            self.notes.stopped(self.processes[name].machine)
            self.processes[name].stop()

    def reload(self, name: str, config: WorkerConfig) -> None:
        """Let a worker follow other names from now on, without a stop."""
        self.configs[name] = config
        if (process := self.processes.get(name)) and process.is_running:
            self.tell(f"{name} is to follow {','.join((*config.names, *config.groups))}")
            self.notes.reloaded(process.machine, is_early=process.is_early)
            process.reload(Names.of(config.names, config.groups))

    def suspend(self, name: str, seconds: float) -> None:
        """Let a worker's machine sleep for a while."""
        process = self.processes[name]
        if process.is_running:
            self.tell(f"{name} is suspended for {seconds:.0f} s")
            self.statistics.suspensions += 1
            self.notes.suspended(process.machine)
            process.suspend()
            self.later(seconds, self._wake, process)

    def _wake(self, process: Process) -> None:
        if process.machine.is_suspended:
            self.tell(f"{process.machine.name} wakes")
            process.wake()

    async def command(self, body: Callable[[Parts], Awaitable[Any]], config: WorkerConfig) -> Any:
        """Run one command in a process of its own, to its end."""
        process = Process("command", self.pubnub, self.server, config.settings())
        return await process.command(body)

    # --- users -----------------------------------------------------------------------------------

    def add(
        self,
        channel: str,
        message: str,
        value: str,
        user: str,
        *,
        published: bool = True,
        at: int | None = None,
        type: str = "reaction",
    ) -> Action | None:
        """Add an action, if PubNub accepts it; return the last one stored."""
        with suppress(RefusedError):
            change = self.state.add(channel, message, type, value, user, published=published, at=at)
            for action in change.actions:
                self._tell_action("adds", channel, action, change.published)
            return change.actions[-1]
        return None

    def remove(self, channel: str, action: Action, *, published: bool = True) -> None:
        """Remove an action, if it is there."""
        of = action.identity
        with suppress(RefusedError):
            change = self.state.remove(
                channel, of.message_timetoken, action.timetoken, of.uuid, published=published
            )
            for each in change.actions:
                self._tell_action("removes", channel, each, change.published)

    def _tell_action(self, verb: str, channel: str, action: Action, published: bool) -> None:
        if self._tells:
            of, untold = action.identity, "" if published else " (207)"
            where = f"{channel} {of.message_timetoken} @{action.timetoken}"
            self.tell(f"{of.uuid} {verb} {of.value} {where}{untold}")

    # --- Redis -----------------------------------------------------------------------------------

    def copy(self) -> Copy:
        """Return a copy of Redis."""
        return self.keyspace.copied(), self.oracle.copied()

    def put_back(self, copied: Copy, why: str) -> None:
        """Let another server answer, which holds an older copy."""
        self.tell(f"Redis: {why}")
        self.statistics.redis_faults += 1
        self.notes.went_back()
        data, memory = copied
        self.keyspace.put_back(data)
        self.oracle.put_back(memory)
        self.server.replace()

    def flush(self) -> None:
        """Let somebody delete every key."""
        self.tell("Redis: FLUSHALL")
        self.statistics.redis_faults += 1
        self.notes.went_back()
        self.keyspace.put_back(({}, {}))
        self.oracle.put_back(Memory())

    def fail_over(self, behind: float, wait: float = 0.0, skew: float | None = None) -> None:
        """Let a replica take over in so many seconds, with the state of now.

        Its clock is ``skew`` seconds ahead.
        """
        copied = self.copy()

        def over() -> None:
            self.put_back(copied, f"fails over to a replica that lacks {behind:.1f} s")
            self._move_clock(self.skew if skew is None else skew)
            if wait:
                self.cut_redis(wait)

        self.later(behind, over)

    def restart_redis(self, seconds: float) -> None:
        """Restart Redis, with everything it had."""
        self.tell(f"Redis: restarts, {seconds:.1f} s")
        self.statistics.redis_faults += 1
        self.server.replace()
        self._down(seconds)

    def cut_redis(self, seconds: float) -> None:
        """Cut Redis off for a while."""
        self.tell(f"Redis: cannot be reached for {seconds:.1f} s")
        self.statistics.redis_faults += 1
        self.server.cut()
        self._down(seconds)

    def _down(self, seconds: float) -> None:
        self.server.is_down = True
        self.later(seconds, self._up)

    def _up(self) -> None:
        self.tell("Redis: answers")
        self.server.is_down = False

    def fill_redis(self, seconds: float) -> None:
        """Let Redis have no room for a while."""
        self.tell(f"Redis: is full for {seconds:.1f} s")
        self.statistics.redis_faults += 1
        self.server.is_full = True
        self.later(seconds, setattr, self.server, "is_full", False)

    def step_clock(self, seconds: float) -> None:
        """Let Redis's clock step forward, or back."""
        self.tell(f"Redis: the clock steps by {seconds:.1f} s")
        self.statistics.redis_faults += 1
        self.notes.stepped()
        self._move_clock(self.skew + seconds)

    def _move_clock(self, skew: float) -> None:
        self.oracle.has_clock_gone_back |= skew < self.skew
        self.skew = skew

    def deny(self, commands: Sequence[str], seconds: float) -> None:
        """Let an ACL refuse commands for a while."""
        self.tell(f"Redis: refuses {', '.join(commands)} for {seconds:.1f} s")
        self.statistics.redis_faults += 1
        self.keyspace.denied = frozenset(commands)

        def end() -> None:
            self.keyspace.denied = frozenset()

        self.until(seconds, end)

    def lose(self, channel: str, message: str, *kinds: str) -> None:
        """Let an eviction or a hand delete keys of a message: ``counts``, ``actions``, both."""
        for kind in kinds:
            self.evict(getattr(KEYS, kind)(channel, message))

    def evict(self, key: str) -> None:
        """Let an eviction or a hand delete a key."""
        self.touch(key, "is deleted")
        self.keyspace.delete(key)

    def touch(self, key: str, what: str) -> None:
        """Note that a hand changes a key: counts may be wrong until they are rebuilt."""
        self.tell(f"Redis: {key} {what}")
        self.statistics.redis_faults += 1
        if where := KEYS.read_message(key):
            self.oracle.tampered(*where)

    # --- PubNub ----------------------------------------------------------------------------------

    def unlist(self, channel: str, seconds: float) -> None:
        """List nothing of one channel for a while."""
        self.tell(f"PubNub: lists nothing of {channel} for {seconds:.0f} s")
        self.state.list_nothing(channel, seconds)

    def mistake_origin(self, seconds: float) -> None:
        """List nothing of anything for a while, as a wrong origin does."""
        self.tell(f"PubNub: lists nothing at all for {seconds:.0f} s")
        self.pubnub.is_another = True
        self.oracle.wrong_since = self.loop.time()
        self.until(seconds, self._know_origin)

    def _know_origin(self) -> None:
        self.pubnub.is_another = False
        self.oracle.wrong_since = None

    def step_pubnub_clock(self, seconds: float) -> None:
        """Let PubNub's clock step forward, or stand still for a while."""
        self.tell(f"PubNub: the clock steps by {seconds:.2f} s")
        self.pubnub_skew += seconds

    def forbid(self, channel: str, seconds: float) -> None:
        """Answer 403 for a channel for a while."""
        self.tell(f"PubNub: {channel} is forbidden for {seconds:.0f} s")
        self._refused.add(channel)
        self.state.refuse(sorted(self._refused))
        self.later(seconds, self.allow, channel)

    def allow(self, channel: str) -> None:
        """Answer for a channel again."""
        self.tell(f"PubNub: {channel} is allowed")
        self._refused.discard(channel)
        self.state.refuse(sorted(self._refused))

    def break_pubnub(self, kind: str, seconds: float) -> None:
        """Let PubNub fail for a while."""
        self.tell(f"PubNub: {kind} for {seconds:.0f} s")
        self.state.set_outage(kind)
        self.later(seconds, self.state.set_outage, None)

    def burst(self, channel: str, messages: int) -> None:
        """Publish ordinary messages until PubNub's cache is full."""
        self.tell(f"{messages} messages in {channel}")
        for _ in range(messages):
            self.state.publish(channel, "hello", "somebody")

    # --- the end ---------------------------------------------------------------------------------

    def counts(self) -> Truth:
        """Return what Redis shows."""
        found: Truth = {}
        for key in list(self.keyspace.values):
            if ":counts:" in key:
                where = KEYS.read_message(key)
                assert where
                channel, message = where
                counts = read_counts(self.keyspace.hgetall(key))
                found.setdefault(channel, {})[message] = counts
        return found

    def differences(self) -> list[str]:
        """Return a line for each wrong tally; if none is wrong, for each wrong user."""
        return differences(self.counts(), self.state.truth()) or self.strangers()

    def strangers(self) -> list[str]:
        """Return a line for each user who is counted and has not reacted, or the reverse."""
        ours = {
            (*where, *read_action_field(field))
            for key, held in self.keyspace.values.items()
            if ":actions:" in key and (where := KEYS.read_message(key))
            for field in held
        }
        theirs = {(channel, *of) for channel, of in self.identities()}
        return [
            f"{' '.join(who)}: {'not there' if who in ours else 'not counted'}"
            for who in sorted(ours ^ theirs)
        ]

    def identities(self) -> Iterator[tuple[str, Identity]]:
        """Yield channel and identity of everything stored."""
        return self.state.storage.identities()

    def owed(self) -> dict[str, str]:
        """Return the channels that need a repair, with the causes.

        A channel that is not known is left alone, unless it is followed by its name or a group.
        """
        lists = [Names.of(each.names, each.groups) for each in self.configs.values()]
        named = {name for each in lists for name in self._channels_of(replace(each, wildcards=()))}
        channels = self.keyspace.smembers(KEYS.channels) | named
        found = {}
        for key, held in sorted(self.keyspace.values.items()):
            channel = key.partition("{")[2].partition("}")[0]
            if key.endswith((":owed", ":progress")) and channel in channels:
                found[channel] = f"{key} {','.join(sorted(held))}"
        return found

    async def calm(self) -> None:
        """End every fault, and let every worker run."""
        self.tell("calm")
        for timer in self._timers:
            timer.cancel()
        for end in self._ends:
            end()
        self.state.faults.replace({})
        self.state.list_nothing("", 0)
        self._refused.clear()
        self.state.refuse()
        self.state.set_outage(None)
        self.server.is_down = self.server.is_full = False
        self.server.slowness = self.pubnub.slowness = 0.0
        for process in self.processes.values():
            process.machine.on_effect = None
            self._wake(process)
        await asyncio.sleep(60)  # longer than any stop takes
        for name in self.configs:
            self.start(name)

    async def is_repaired(self, longest: float) -> bool:
        """Wait until nothing is owed, or a person has to decide.

        Return whether nothing is owed.
        """
        begun = self.loop.time()
        # The first answer of an idle poll shows that its cursor was stale.
        await asyncio.sleep(IDLE_SECONDS + SETTLE_SECONDS + 5)
        while not self._is_refused_since(begun):
            if self.loop.time() - begun > longest:
                break
            await asyncio.sleep(20)
        return not self.owed()

    def _is_refused_since(self, begun: float) -> bool:
        """Tell whether whatever is owed has been refused since then."""
        return all(self.notes.refused.get(name, 0.0) > begun for name in self.owed())

    async def reconcile(
        self, channels: Iterable[str], config: WorkerConfig, *, force: bool = False
    ) -> list[ReconcileReport]:
        """Reconcile the channels as the command does."""

        async def body(parts: Parts) -> list[ReconcileReport]:
            reconcile = build_reconciler(parts, tries=COMMAND_TRIES)
            return await reconcile.run(channels, Range(), ReconcileOptions(force=force))

        reports: list[ReconcileReport] = await self.command(body, config)
        self.tell(f"reconciled{' by force' * force}: {reports}")
        return reports

    async def close(self) -> None:
        """End every process."""
        self.check()
        tasks = []
        for process in self.processes.values():
            process.kill()
            tasks.append(process.task)
        for timer in self._timers:
            timer.cancel()
        await asyncio.gather(*filter(None, tasks), return_exceptions=True)

    def check(self) -> None:
        """Expect every invariant to hold."""
        self.oracle.check_followers()
        if self.ended:
            raise BrokenError(f"a worker failed: {self.ended[0]}")

    def cast(self) -> Sequence[str]:
        """Return the names of the workers."""
        return list(self.processes)
