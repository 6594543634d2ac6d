"""A worker to which everything happens that a dashboard shows, and a Prometheus that looks on."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import web

from tests.deploy.prometheus_server import Prometheus
from tests.end_to_end.processes import KEY, KEYS, MESSAGE, Child, Crowd, Stage, wait_until
from tests.redis_server import MortalServer, free_port
from worker.domain.position import Range
from worker.emulator import Emulator
from worker.service import commands
from worker.settings import Settings
from worker.store.connection import connect
from worker.store.tables import Tables

JOB: Final = "tally"
BUSY: Final = "busy"
REFUSED: Final = "private"
ROOMS: Final = ("lobby", "garden", BUSY)
VERIFIED: Final = "verified.prom"
QUIET: Final = "cellar"
OLD: Final = 250
"""Actions that are there before the worker is, where nobody acts."""
APPLY_WAIT_SECONDS: Final = 60
SCRAPE_SECONDS: Final = 5
"""While Redis is away the worker takes up to two seconds to say so, on a machine at rest."""


@asynccontextmanager
async def textfile(written: Path) -> AsyncIterator[str]:
    """Serve a file, once it is there, as node_exporter's textfile collector does; yield the address."""

    async def collect(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(
            text=await asyncio.to_thread(lambda: written.read_text() if written.exists() else "")
        )

    runner = web.ServerRunner(web.Server(collect))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@dataclass
class Eventful:
    """The worker, and those who look on."""

    stage: Stage
    server: MortalServer
    worker: Child
    prometheus: Prometheus
    crowd: Crowd

    async def suffers(self, pause: float = 0.0) -> None:
        """Let it all happen: an overflow, a poison event, a lost removal, an outage, a new list, a restart of Redis."""
        state, crowd = self.stage.state, self.crowd
        for user in range(150):  # in one answer
            state.add(BUSY, MESSAGE, "reaction", "🔥", f"user-{user}")
        await asyncio.sleep(pause)
        state.inject("lobby", {"e": 3, "c": "lobby", "d": {"event": "added", "data": "poison"}})
        lost = state.actions(QUIET)[0]
        state.remove(
            QUIET,
            lost.identity.message_timetoken,
            lost.timetoken,
            lost.identity.uuid,
            published=False,
        )
        await asyncio.sleep(pause)
        state.set_outage("server_error", ("subscribe",))
        await self._until("pubnub_unreachable")
        await asyncio.sleep(pause)
        state.set_outage(None)
        await crowd.has_acted(20)
        (self.stage.folder / "channels").write_text("\n".join((*ROOMS, QUIET, REFUSED, "attic")))
        self.worker.ask(signal.SIGHUP)
        await asyncio.sleep(pause)
        # A round that met the outage would be made again ten seconds later; one at least is over.
        await wait_until(
            Tables(self.stage.redis, KEYS).rounds.read, APPLY_WAIT_SECONDS, what=self._words
        )
        await self.server.end()
        await self._until("redis_unavailable")
        await asyncio.sleep(pause)
        await self.server.revive()

    async def is_verified(self) -> None:
        """Have a verify write its figures for node_exporter: in a namespace of what holds still, as a whole."""
        apart = {"TALLY_NAMESPACE": "apart", "TALLY_CHANNELS": QUIET, "TALLY_CHANNELS_FILE": ""}
        given = {name: text for name, text in {**self.stage.settings, **apart}.items() if text}
        await commands.run_backfill(Settings.model_validate(given), [], Range(), None)
        verify = self.stage.start(
            "verify", "--metrics-file", str(self.stage.folder / VERIFIED), **apart
        )
        assert await verify.ended(APPLY_WAIT_SECONDS) == 0, verify.err

    async def _until(self, event: str) -> None:
        """Return when the worker has logged this."""
        await wait_until(lambda: self.worker.entries(event), APPLY_WAIT_SECONDS, what=self._words)

    def _words(self) -> str:
        return self.worker.err[-3000:]


@asynccontextmanager
async def eventful(folder: Path, settle: float, rounds: float) -> AsyncIterator[Eventful]:
    """Start all of it; ``settle`` is the settle time, ``rounds`` the time between two rounds, both in seconds.

    Prometheus is the first to start, for it takes some seconds until it looks.
    """
    server, address = MortalServer(folder / "redis"), f"127.0.0.1:{free_port()}"
    try:
        async with (
            connect(server.url) as redis,
            Emulator(seed=1, subscribe_key=KEY) as emulator,
            textfile(folder / VERIFIED) as node,
            Prometheus(
                folder / "prometheus", {JOB: [address], "node": [node]}, None, SCRAPE_SECONDS
            ) as prometheus,
        ):
            stage = Stage(emulator, redis, server.url, folder)
            stage.settings["TALLY_HTTP"] = address
            try:
                worker = await followed(stage, settle, rounds)
                crowd = Crowd(stage.state, seed=5, channels=ROOMS)
                async with crowd.acting(emulator):
                    yield Eventful(stage, server, worker, prometheus, crowd)
            finally:
                stage.end()
    finally:
        server.destroy()


async def followed(stage: Stage, settle: float, rounds: float) -> Child:
    """Start a worker where there is a past, and a name that is refused."""
    for number in range(OLD):
        stage.state.add(QUIET, MESSAGE, "reaction", "🌱", f"old-{number}", published=False)
    stage.state.refuse([REFUSED])
    (stage.folder / "channels").write_text("\n".join((*ROOMS, QUIET, REFUSED)))
    stage.settings |= {
        "TALLY_CHANNELS": "",
        "TALLY_CHANNELS_FILE": str(stage.folder / "channels"),
        "TALLY_CHANNELS_PER_SUBSCRIPTION": "3",
        "TALLY_HISTORY_RATE": "40",
        "TALLY_SETTLE_SECONDS": str(settle),
        "TALLY_RECONCILE_SECONDS": str(rounds),
        "TALLY_LOG_FORMAT": "json",
    }
    worker, polls = stage.start("run"), stage.emulator.requests
    await wait_until(
        lambda: polls["subscribe"] or not worker.is_alive,
        APPLY_WAIT_SECONDS,
        what=lambda: worker.err,
    )
    assert worker.is_alive, worker.err
    return worker
