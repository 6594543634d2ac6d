"""A world for whole workers and commands: a PubNub to follow, a Redis to write to, users who react.

>>> async with open_world(valkey.url, folder) as world, world.run_worker():
...     world.react("👍", "ana")
...     await world.wait_for_counts({"👍": 1})
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import unquote

from redis.asyncio import Redis

from reaction_tally import AsyncTallyReader
from reaction_tally.keys import Keys
from tests.bench.in_process import Commands, Ended, Running
from tests.processes import Child
from tests.waiting import WAIT_SECONDS, wait_until
from worker.emulator import Emulator, State, Truth
from worker.store.connection import connect

KEY: Final = "sub-c-test"
KEYS: Final = Keys()
NO_ROUNDS: Final = {"TALLY_RECONCILE_SECONDS": "1000000000"}
"""Lists are read for repairs alone."""
ROOM: Final = "room"
MESSAGE: Final = "17600000001728660"

SECOND: Final = 10_000_000
"""Timetokens a second."""
FIRST: Final = 17_500_000_000_000_000
"""The timetoken of the oldest action of ``World.fill``."""


class View:
    """What Redis shows, read as any program may read it."""

    def __init__(self, redis: Redis) -> None:
        # redis-py types its commands for both its clients at once; here they are always awaited.
        self.redis = cast("Any", redis)

    @cached_property
    def reader(self) -> AsyncTallyReader:
        """Our client for applications."""
        return AsyncTallyReader(self.redis)

    async def tallies(self) -> Truth:
        """Return channel → message → type → value → count, of every counts hash."""
        tallies: Truth = {}
        async for key in self.redis.scan_iter("tally:{*}:counts:*", count=1000):
            channel, _, message = key.removeprefix("tally:{").rpartition("}:counts:")
            for field, count in (await self.redis.hgetall(key)).items():
                type, _, value = field.partition(":")
                types = tallies.setdefault(unquote(channel), {}).setdefault(message, {})
                types.setdefault(unquote(type), {})[value] = int(count)
        return tallies

    async def counts(self) -> Mapping[str, int]:
        """Return value → count of the reactions to the message in the room."""
        counts = (await self.tallies()).get(ROOM, {}).get(MESSAGE, {})
        return counts.get("reaction", {})

    async def wait_for_counts(self, expected: Mapping[str, int]) -> None:
        """Wait until the counts of the message are these."""

        async def are_these() -> bool:
            return await self.counts() == expected

        await wait_until(are_these, what=lambda: f"Expected {expected}.")

    async def owed(self, channel: str = ROOM) -> set[str]:
        """Return the causes for which a channel needs a repair."""
        return set(await self.redis.hgetall(KEYS.owed(channel)))

    async def owes_nothing(self) -> bool:
        """Tell whether no channel needs a repair and no backfill is under way."""
        owed = await self.redis.keys("tally:*:owed")
        return not (owed or await self.redis.keys("tally:*:progress"))

    async def cursors(self) -> dict[str, dict[str, str]]:
        """Return the cursor of each subscription, by its key."""
        keys = await self.redis.keys("tally:cursor:*")
        return {key: await self.redis.hgetall(key) for key in keys}

    async def quarantine(self) -> list[dict[str, str]]:
        """Return the quarantined events, oldest first."""
        return [entry for _, entry in await self.redis.xrange("tally:quarantine")]

    @asynccontextmanager
    async def hanging_redis(self) -> AsyncIterator[None]:
        """Let Redis answer no write while this is open."""
        await self.redis.client_pause(600_000, all=False)
        try:
            yield
        finally:
            await self.redis.client_unpause()


class World(View):
    """One PubNub, one Redis, one folder, and the commands that run there."""

    def __init__(self, emulator: Emulator, redis: Redis, url: str, folder: Path) -> None:
        super().__init__(redis)
        self.emulator = emulator
        self.state: State = emulator.state
        self.folder = folder
        self.settings: dict[str, str] = {
            "PUBNUB_SUBSCRIBE_KEY": KEY,
            "PUBNUB_ORIGIN": emulator.origin,
            "PUBNUB_TLS": "false",
            "REDIS_URL": url,
            "TALLY_CHANNELS": ROOM,
            "TALLY_HISTORY_RATE": "1000",
            "TALLY_HTTP": "127.0.0.1:0",
        }
        self.children: list[Child] = []
        self.wrapper: tuple[str, ...] = ()
        """A command that runs the processes of this world, such as one that sets a limit."""

    def react(
        self, value: str = "👍", uuid: str = "ana", channel: str = ROOM, *, published: bool = True
    ) -> int:
        """Add one user's reaction to the message; return its action timetoken.

        PubNub sends no event for a reaction that is not ``published``, but lists it.
        """
        change = self.state.add(channel, MESSAGE, "reaction", value, uuid, published=published)
        return change.actions[-1].timetoken

    def take_back(self, action: int, uuid: str = "ana", *, published: bool = True) -> None:
        """Remove the reaction with this action timetoken."""
        self.state.remove(ROOM, MESSAGE, action, uuid, published=published)

    def deliver(self, event: str, value: str, uuid: str, action: int) -> None:
        """Send an ``added`` or a ``removed`` event, whatever PubNub lists."""
        data = {"value": value, "actionTimetoken": str(action)}
        self.state.inject(ROOM, envelope(event=event, i=uuid, data=data))

    def add_past(self, reactions: int, value: str = "👍", channel: str = ROOM) -> None:
        """Add so many reactions to the message, of which no event tells."""
        for number in range(reactions):
            self.react(value, f"old-{number}", channel, published=False)

    def fill(self, actions: int, *, channel: str = ROOM, messages: int = 500) -> None:
        """Give a channel a past: so many actions, a second apart, the newest of them long ago."""
        for number in range(actions):
            message = str(int(MESSAGE) + number % messages)
            value, uuid = "👍🎉❤"[number % 3], f"user-{number // messages}"
            at = FIRST + number * SECOND
            self.state.add(channel, message, "reaction", value, uuid, published=False, at=at)

    def commands(self) -> Commands:
        """Return commands in this world, which run in this process."""
        return Commands(self.folder, self.settings)

    @asynccontextmanager
    async def run_worker(self, **settings: str | None) -> AsyncIterator[Running]:
        """Run ``tally run`` in this process until the block ends; begin when it listens."""
        polls = self.emulator.requests["subscribe"]
        async with self.commands().worker(**settings) as worker:
            await self._listening(polls, 1, worker.work.done, lambda: worker.err)
            yield worker

    async def run_command(self, *arguments: str, **settings: str | None) -> Ended:
        """Run a command in this process, for example ``reconcile``."""
        return await self.commands().do(*arguments, **settings)

    def start(self, *arguments: str, **settings: str | None) -> Child:
        """Start a command as a process; a setting of None is left unset."""
        number = len(self.children)
        child = Child(self.folder, number, arguments, {**self.settings, **settings}, self.wrapper)
        self.children.append(child)
        return child

    async def do(self, *arguments: str, **settings: str | None) -> Child:
        """Start a command as a process, and return when it has ended."""
        child = self.start(*arguments, **settings)
        await child.ended()
        return child

    async def follow(self, *, polls: int = 1, **settings: str | None) -> Child:
        """Start a worker as a process, and return when it listens with so many subscriptions."""
        before = self.emulator.requests["subscribe"]
        child = self.start("run", **settings)
        await self._listening(before, polls, lambda: not child.is_alive, child.tail)
        return child

    async def _listening(
        self, before: int, polls: int, is_over: Callable[[], bool], log: Callable[[], str]
    ) -> None:
        def listens() -> bool:
            has_asked = self.emulator.requests["subscribe"] >= before + polls
            return has_asked and self.emulator.waiting >= polls

        await wait_until(lambda: is_over() or listens(), what=log)
        assert not is_over(), log()

    async def is_exact(self) -> bool:
        """Tell whether the tallies are PubNub's truth now."""
        return await self.tallies() == self.emulator.truth()

    async def settles(self, seconds: float = WAIT_SECONDS) -> None:
        """Wait until the tallies are PubNub's truth, and no backfill is under way."""

        async def is_settled() -> bool:
            return await self.is_exact() and not await self.redis.keys("tally:*:progress")

        try:
            await wait_until(is_settled, seconds, what=self.logs)
        except AssertionError:
            assert await self.tallies() == self.emulator.truth(), self.logs()
            raise

    async def has_polled(self, times: int) -> None:
        """Wait until PubNub was polled so often."""
        polled = self.emulator.requests
        await wait_until(lambda: polled["subscribe"] >= times, what=self.logs)

    def logs(self) -> str:
        """Return the end of every process's log, for the message of a failure."""
        return "\n".join(child.tail() for child in self.children)

    def end(self) -> None:
        """End every command that still runs."""
        for child in self.children:
            child.process.kill()
            child.process.wait()


@asynccontextmanager
async def open_world(
    url: str, folder: Path, *, seed: int = 1, faults: Mapping[str, float] | None = None
) -> AsyncIterator[World]:
    """Yield a world on this Redis; every command that was started there has ended afterwards."""
    async with (
        connect(url) as redis,
        Emulator(seed=seed, subscribe_key=KEY, faults=faults) as emulator,
    ):
        world = World(emulator, redis, url, folder)
        try:
            yield world
        finally:
            world.end()


def envelope(*, event: str = "added", **changes: Any) -> dict[str, Any]:
    """Return an event as PubNub sends it; a change of ... leaves a member out."""
    data = {
        "type": "reaction",
        "value": "poison",
        "actionTimetoken": "17600000002020754",
        "messageTimetoken": MESSAGE,
    }
    data = _changed(data, changes.pop("data", {}))
    message = {
        "a": "5",
        "f": 0,
        "e": 3,
        "i": "mallory",
        "p": {"t": "17600000002110345", "r": 43},
        "k": KEY,
        "c": ROOM,
        "d": {"source": "actions", "version": "1.0", "event": event, "data": data},
    }
    return _changed(message, changes)


def _changed(members: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    changed = {**members, **changes}
    return {name: value for name, value in changed.items() if value is not ...}
