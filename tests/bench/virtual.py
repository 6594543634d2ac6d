"""Tests on virtual time: no wait takes real time, and ready tasks run in several orders."""

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Iterable
from functools import wraps
from random import Random
from typing import Any, Concatenate, Final, ParamSpec, cast

import structlog
from structlog.typing import EventDict

from tests.simulation.history import surroundings
from tests.simulation.loop import VirtualLoop, running
from tests.simulation.machine import Machine
from tests.simulation.process import parts
from tests.simulation.world import DAY_TICKS, KEYS, WorkerConfig, World
from worker.domain.action import Added, Identity
from worker.domain.position import TICKS_PER_SECOND
from worker.service.parts import Parts

ORDERS: Final = 3
"""Orders in which each test is played."""
LONGEST_SECONDS: Final = DAY_TICKS / TICKS_PER_SECOND
"""The longest wait, in virtual time."""
STEP_SECONDS: Final = 0.5

Given = ParamSpec("Given")


def on_virtual_time(
    test: Callable[Concatenate[World, Given], Coroutine[Any, Any, None]],
) -> Callable[Given, None]:
    """Play a test in a world of its own, once for each order.

    The world is its first argument.
    """

    @wraps(test)
    def play(*args: Given.args, **kwargs: Given.kwargs) -> None:
        for seed in range(ORDERS):
            world = World(seed, VirtualLoop(Random(seed)), tells=True)
            with surroundings(world, seed, tells=True):
                world.loop.run(whole(world, *args, **kwargs))

    async def whole(world: World, *args: Given.args, **kwargs: Given.kwargs) -> None:
        await test(world, *args, **kwargs)
        await world.close()

    signature = inspect.signature(test)
    del cast("Any", play).__wrapped__  # the world is no fixture
    cast("Any", play).__signature__ = signature.replace(
        parameters=list(signature.parameters.values())[1:]
    )
    return play


def worker_parts(world: World) -> Parts:
    """Return the parts of a worker, on twins of PubNub and Redis."""
    return parts(
        world.pubnub, world.server, Machine("test"), WorkerConfig(world.channels).settings()
    )


async def until(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds; fail if it never does."""
    loop = running()
    longest = loop.time() + LONGEST_SECONDS
    while not condition():
        assert loop.time() < longest, "what was waited for never came"
        await asyncio.sleep(STEP_SECONDS)


def owed(world: World, *channels: str) -> dict[str, set[str]]:
    """Return the causes of channels that need a repair."""
    causes = {channel: set(world.keyspace.hgetall(KEYS.owed(channel))) for channel in channels}
    return {channel: why for channel, why in causes.items() if why}


class Log(list[EventDict]):
    """What is logged from now on, with ``level``; ``at`` is the time of an entry."""

    def __init__(self) -> None:
        super().__init__()
        structlog.configure(processors=[self._note])  # until the test ends

    def _note(self, _logger: object, level: str, entry: Any) -> Any:
        self.append({**entry, "at": running().time(), "level": level})
        raise structlog.DropEvent

    def of(self, event: str, channel: str = "room") -> list[EventDict]:
        """Return the entries of that name about a channel."""
        return [
            entry for entry in self if entry["event"] == event and entry.get("channel") == channel
        ]


class Witness:
    """NotedProgress when Redis gets certain commands for a channel, in seconds."""

    def __init__(self, world: World, channel: str = "room") -> None:
        self.rolls_called: list[float] = []
        self.marks_taken_back: list[float] = []
        do = world.server.do

        def look_on(name: str, args: Any, options: Any) -> Any:
            if name == "zscan" and args[0] == KEYS.messages(channel):
                self._note_roll(world.loop.time())
            if name == "repay" and args[0] == [KEYS.owed(channel)]:
                self.marks_taken_back.append(world.loop.time())
            return do(name, args, options)

        cast("Any", world.server).do = look_on

    def _note_roll(self, now: float) -> None:
        """Note a comparison; it reads the index several times in the first second."""
        if not self.rolls_called or now - self.rolls_called[-1] > 1:
            self.rolls_called.append(now)


def act(world: World, seconds_ago: float, channel: str = "room", uuid: str = "ana") -> Added:
    """Let a user have reacted so long ago, without an event."""
    message = world.state.time.now() - round(seconds_ago * TICKS_PER_SECOND)
    action = world.add(channel, str(message), "👍", uuid, published=False, at=message + 10)
    assert action
    at = str(action.timetoken)
    return Added(Identity(channel, str(message), "reaction", "👍", uuid), at, at)


def unheard(world: World, channels: Iterable[str], count: int) -> None:
    """Let so many users have reacted in each channel, an hour ago, without an event."""
    for channel in channels:
        for number in range(count):
            act(world, 3600 + number, channel, f"user{number}")
