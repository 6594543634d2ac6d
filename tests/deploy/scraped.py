"""A worker with a past, a refused channel and a small load, and a Prometheus that scrapes it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import web

from tests.crowds import Crowd
from tests.deploy.prometheus_server import Prometheus
from tests.processes import Child
from tests.redis_server import RedisServer, free_port
from tests.worlds import World, open_world

ROOMS: Final = ("lobby", "garden")
QUIET: Final = "cellar"
REFUSED: Final = "private"
SCRAPE_SECONDS: Final = 5


@asynccontextmanager
async def textfile(path: Path) -> AsyncIterator[str]:
    """Serve a file of metrics, once it exists, as node_exporter does; yield the address."""

    async def collect(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text=_text(path))

    runner = web.ServerRunner(web.Server(collect))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@dataclass(frozen=True)
class Scene:
    """The worker and the Prometheus."""

    worker: Child
    prometheus: Prometheus


@asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[Scene]:
    """Start both; a verify has written its figures for node_exporter before."""
    server, address = RedisServer(), f"127.0.0.1:{free_port()}"
    metrics = folder / "verified.prom"
    try:
        async with (
            open_world(server.url, folder) as world,
            textfile(metrics) as node,
            Prometheus(
                folder / "prometheus", {"tally": [address], "node": [node]}, None, SCRAPE_SECONDS
            ) as prometheus,
        ):
            await _verify(world, metrics)
            worker = await _follow(world, address)
            crowd = Crowd(world.state, seed=5, channels=ROOMS)
            async with crowd.acting(world.emulator):
                yield Scene(worker, prometheus)
    finally:
        server.stop()


async def _verify(world: World, metrics: Path) -> None:
    """Count the quiet channel, and let a verify of everything there is write its figures."""
    world.add_past(250, "🌱", QUIET)
    world.settings["TALLY_CHANNELS"] = QUIET
    for command in ("backfill",), ("verify", "--metrics-file", str(metrics)):
        child = await world.do(*command, TALLY_SETTLE_SECONDS="0.5")
        assert child.process.returncode == 0, child.err


async def _follow(world: World, address: str) -> Child:
    world.state.refuse([REFUSED])
    return await world.follow(
        TALLY_HTTP=address,
        TALLY_CHANNELS=",".join((*ROOMS, QUIET, REFUSED)),
        TALLY_CHANNELS_PER_SUBSCRIPTION="3",
        TALLY_SETTLE_SECONDS="2",
        TALLY_RECONCILE_SECONDS="1",
    )
