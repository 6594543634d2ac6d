"""The worker of a day: who starts it, stops it, gives it lists and tokens, and sees it count."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from tests.drill.load import Load
from tests.drill.report import gaps_of
from tests.drill.rooms import NEVER, probe
from tests.drill.windows import total
from tests.processes import Child
from tests.redis_server import free_port
from tests.waiting import WAIT_SECONDS, wait_until
from tests.worlds import World
from worker.emulator import READ, Grant

LONGEST_RETRY_SECONDS: Final = 600
"""So long a repair that failed may wait, because Redis was full or the token had ended."""
OLD: Final = "🕰"
"""The value of all reactions from before the first worker."""
LAST_DAY_MINUTES: Final = 23 * 60
"""The life of a token that should be replaced now."""
MONTH_MINUTES: Final = 30 * 24 * 60
SIGNING_KEYS: Final = ("pub-c-test", "sec-c-test")


class Shift:
    """One worker at a time, the load on it, and the files that configure it."""

    def __init__(self, world: World, load: Load, settle_seconds: float) -> None:
        world.state.access.switch_on(*SIGNING_KEYS)
        self.world = world
        self.load = load
        self.address = f"127.0.0.1:{free_port()}"
        self._worker: Child | None = None
        self._token = world.folder / "token"
        self._list = world.folder / "channels"
        world.settings |= {
            "PUBNUB_AUTH_TOKEN_FILE": str(self._token),
            "TALLY_CHANNELS": "",
            "TALLY_CHANNELS_FILE": str(self._list),
            "TALLY_CHANNELS_PER_SUBSCRIPTION": "2",
            "TALLY_SETTLE_SECONDS": str(settle_seconds),
            "TALLY_RECONCILE_SECONDS": NEVER,
            "TALLY_HTTP": self.address,
        }

    @property
    def worker(self) -> Child:
        """The worker that runs now."""
        assert self._worker
        return self._worker

    def log(self) -> str:
        """Return the end of the worker's log."""
        return self.worker.tail()

    async def start(self) -> None:
        """Start a worker, and return when it is ready."""
        self._worker = worker = self.world.start("run")
        await wait_until(lambda: not worker.is_alive or worker.entries("http_listens"))
        assert worker.is_alive, worker.err
        await wait_until(worker.is_ready, what=self.log)

    async def stop(self) -> float:
        """Stop the worker, which must end well; return the seconds that takes."""
        asked = time.monotonic()
        self.worker.ask(signal.SIGTERM)
        code = await asyncio.to_thread(self.worker.process.wait, WAIT_SECONDS)
        assert code == 0, self.log()
        return time.monotonic() - asked

    def list_channels(self, channels: Sequence[str]) -> None:
        """Write the list of channels."""
        self._list.write_text("\n".join(channels), encoding="utf-8")

    async def reload(self, channels: Sequence[str], *, added: int, removed: int) -> None:
        """Have the list read again; expect so many channels more and less."""
        before = len(self.worker.entries("channels_reloaded"))
        self.list_channels(channels)
        self.worker.ask(signal.SIGHUP)
        await self.worker.logs("channels_reloaded", times=before + 1)
        entry = self.worker.entries("channels_reloaded")[-1]
        assert (entry["added"], entry["removed"]) == (added, removed), entry

    def grant(self, minutes: int) -> str:
        """Write a new token that lives so long into the file; return it."""
        token = self.world.state.access.grant(Grant(minutes=minutes, channel_patterns={".*": READ}))
        self._token.write_text(token, encoding="utf-8")
        return token

    async def takes_token(self, grant: Callable[[], object]) -> None:
        """Put a new token in place; return when the worker uses it."""
        before = len(self.worker.entries("token_renewed"))
        grant()
        await self.worker.logs("token_renewed", times=before + 1)

    async def refusals(self) -> float:
        """Return the number of answers of 403 that the worker got."""
        figures = await self.worker.figures()
        return sum(value for series, value in figures.items() if 'status="403"' in series)

    async def probe(self) -> str:
        """Return how long it takes to count a reaction in every channel of the load."""
        began = time.monotonic()
        await probe(self.world, self.load.channels)
        return f"probes counted after {time.monotonic() - began:.2f} s"

    async def become_true(self, channels: Sequence[str]) -> None:
        """Wait until these channels, in which nobody acts now, are as PubNub has them."""

        async def are_true() -> bool:
            tallies, truth = await self.world.tallies(), self.world.emulator.truth()
            return all(tallies.get(channel) == truth.get(channel) for channel in channels)

        await wait_until(are_true, what=self.log)

    async def repay(self) -> None:
        """Wait until the worker owes nothing."""

        async def owes_nothing() -> bool:
            figures = await self.worker.figures()
            return total(figures, "tally_channels_owed") == 0 == figures["tally_backfills"]

        await wait_until(owes_nothing, LONGEST_RETRY_SECONDS + WAIT_SECONDS, what=self.log)

    def gaps(self) -> Counter[str]:
        """Return how often each cause of a gap was logged, by all workers."""
        return gaps_of(self.world)
