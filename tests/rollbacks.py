"""A Redis that goes back to an older state under a worker, and a worker that repairs that."""

from pathlib import Path
from typing import Any, Final, Protocol

from tests.crowds import Crowd
from tests.redis_server import MortalServer
from tests.waiting import wait_until
from tests.worlds import World

HOUR: Final = 3600
CACHED: Final = 20
"""Acts that PubNub's cache still holds when the worker asks again."""
OVERFLOWING: Final = 150
"""Acts that are more than it holds."""


class Worker(Protocol):
    """A worker, in a process of its own or in this one."""

    @property
    def err(self) -> str:
        """The text on standard error until now."""

    def entries(self, event: str) -> list[dict[str, Any]]:
        """Return the log entries of that name."""


def repairs_soon(world: World) -> None:
    """Let a worker repair itself in a second or two.

    Most of what is counted is old, so that a repair need not remove too much of it.
    """
    world.settings["TALLY_SETTLE_SECONDS"] = "0.5"
    world.add_past(300)


async def is_repaired(world: World, worker: Worker) -> None:
    """Return when the tallies are PubNub's truth, and nothing is owed or under way."""

    async def is_done() -> bool:
        return await world.owes_nothing() and await world.is_exact()

    await wait_until(is_done, what=lambda: worker.err[-5000:])


async def loses(world: World, crowd: Crowd, acts: int) -> None:
    """Let the crowd do what Redis is about to forget, and let the worker count it."""
    async with crowd.acting(world.emulator, per_second=500):
        await crowd.has_acted(acts)
    await world.settles()


async def goes_back(world: World, server: MortalServer, copy: Path) -> None:
    """Put a copy back while Redis is down for a moment."""
    await server.kill()
    await server.revive(copy)
    await world.redis.connection_pool.disconnect()  # the connections to the earlier server


def causes(worker: Worker) -> set[str]:
    """Return the causes of the gaps in the worker's log."""
    return {entry["cause"] for entry in worker.entries("gap")}


async def notices(worker: Worker, cause: str) -> None:
    """Wait until the worker's log has a gap of that cause."""
    await wait_until(lambda: cause in causes(worker), what=lambda: worker.err[-3000:])
