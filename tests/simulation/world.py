"""Everything a worker meets: PubNub, Redis, users, kills, cuts and suspensions."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from tests.chaos.comparison import differences
from tests.simulation.keyspace import Keyspace
from tests.simulation.loop import VirtualLoop
from tests.simulation.oracle import BrokenError, Memory, Oracle
from tests.simulation.process import Process
from tests.simulation.pubnub_twin import IDLE_SECONDS, PubNub
from tests.simulation.redis_twin import Server
from worker.domain.position import Range
from worker.emulator import Identity, State, Truth
from worker.emulator.actions import Action
from worker.emulator.replies import RefusedError
from worker.reconciliation.reconcile import ReconcileOptions, ReconcileReport
from worker.service.commands import COMMAND_TRIES
from worker.service.parts import Parts, build_reconciler
from worker.settings import Settings
from worker.source.names import Names, matches
from worker.store.keys import Keys, read_action_field
from worker.store.reader import read_counts

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
        self.random = random("world")
        self.state = State(loop.time, random("faults"), faults or {})
        self.oracle = Oracle(self.state)
        self.keyspace = Keyspace(lambda: loop.time() + self.skew, self.oracle)
        self.oracle.keyspace = self.keyspace
        self.oracle.channels_of = self._channels_of
        self.oracle.watch(self.state)
        self.server = Server(self.keyspace, random("redis"))
        self.pubnub = PubNub(self.state, random("ways"))
        self.processes: dict[str, Process] = {}
        self.configs: dict[str, WorkerConfig] = {}
        self.statistics = Statistics()
        self.story: list[str] = []
        self.ended: list[str] = []
        self.live_only = False
        self.skew = 0.0
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
        process.start()
        assert process.task
        process.task.add_done_callback(lambda task: self._has_ended(name, task))
        return process

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
            self.processes[name].stop()

    def reload(self, name: str, config: WorkerConfig) -> None:
        """Let a worker follow other names from now on, without a stop."""
        self.configs[name] = config
        if (process := self.processes.get(name)) and process.is_running:
            self.tell(f"{name} is to follow {','.join((*config.names, *config.groups))}")
            process.reload(Names.of(config.names, config.groups))

    def suspend(self, name: str, seconds: float) -> None:
        """Let a worker's machine sleep for a while."""
        process = self.processes[name]
        if process.is_running:
            self.tell(f"{name} is suspended for {seconds:.0f} s")
            self.statistics.suspensions += 1
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
        data, memory = copied
        self.keyspace.put_back(data)
        self.oracle.put_back(memory)
        self.server.replace()

    def fail_over(self, behind: float, wait: float = 0.0, skew: float | None = None) -> None:
        """Let a replica take over in so many seconds, with the state of now.

        Its clock is ``skew`` seconds ahead.
        """
        copied = self.copy()

        def over() -> None:
            self.put_back(copied, f"fails over to a replica that lacks {behind:.1f} s")
            self.skew = self.skew if skew is None else skew
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

    def lose(self, channel: str, message: str, *kinds: str) -> None:
        """Let an eviction or a hand delete keys of a message: ``counts``, ``actions``, both."""
        self.tell(f"Redis: {' and '.join(kinds)} of {channel} {message} are deleted")
        self.statistics.redis_faults += 1
        self.oracle.tampered(channel, message)
        for kind in kinds:
            self.keyspace.delete(getattr(KEYS, kind)(channel, message))

    def lose_index(self, channel: str) -> None:
        """Let an eviction or a hand delete the index of a channel's messages."""
        self.tell(f"Redis: the index of {channel} is deleted")
        self.statistics.redis_faults += 1
        self.keyspace.delete(KEYS.messages(channel))

    def fill_redis(self, seconds: float) -> None:
        """Let Redis have no room for a while."""
        self.tell(f"Redis: is full for {seconds:.1f} s")
        self.statistics.redis_faults += 1
        self.server.is_full = True
        self.later(seconds, setattr, self.server, "is_full", False)

    # --- PubNub ----------------------------------------------------------------------------------

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

    def owed(self) -> list[str]:
        """Return the channels that need a repair, with the causes."""
        return [
            f"{key} {','.join(sorted(held))}"
            for key, held in sorted(self.keyspace.values.items())
            if key.endswith((":owed", ":progress"))
        ]

    async def calm(self) -> None:
        """End every fault, and let every worker run."""
        self.tell("calm")
        for timer in self._timers:
            timer.cancel()
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

    async def is_repaired(self, longest: float = HOUR / 2) -> bool:
        """Wait until nothing is owed; return whether that came in time."""
        # The first answer of an idle poll shows that its cursor was stale.
        await asyncio.sleep(IDLE_SECONDS)
        begun = self.loop.time()
        await asyncio.sleep(SETTLE_SECONDS + 5)
        while self.owed():
            if self.loop.time() - begun > longest:
                return False
            await asyncio.sleep(20)
        return True

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
