"""The board: beside a worker, or as a command of its own."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Final

from prometheus_client import Metric

from reaction_tally import AsyncTallyReader
from reaction_tally.keys import Keys
from worker.board.feed import Feed
from worker.board.plots import Counters
from worker.board.site import PREFIX, BoardPages
from worker.board.sources import Sources
from worker.board.summary import Status
from worker.errors import ConfigurationError, TallyError
from worker.service.backlog import BacklogReader
from worker.service.health import Health, backlog_status
from worker.service.parts import Parts
from worker.service.remote_worker import RemoteWorker
from worker.settings import Settings
from worker.source.backoff import elapsed_clock
from worker.store.connection import RedisClient, opened_redis, reading_client
from worker.store.heartbeat import no_worker
from worker.store.journal import Journal
from worker.store.ownership import check_ownership
from worker.store.protocol import explained
from worker.store.tables import Tables
from worker.telemetry import metrics
from worker.telemetry.address import LOOPBACK
from worker.web.access import Access
from worker.web.server import listening
from worker.web.site import Site
from worker.web.streams import Streams

CONNECTIONS: Final = 16
"""Connections to Redis for all clients together. The worker has its own."""
ANSWER_SECONDS: Final = 2.0
"""How long Redis may take to answer."""
COUNTED: Final = (
    metrics.events,
    metrics.lag,
    metrics.budget_requests,
    metrics.budget_rate,
)
"""What the plots show."""


@asynccontextmanager
async def board_of_worker(
    parts: Parts,
    health: Health,
    access: Access,
    streams: Streams,
) -> AsyncIterator[Site]:
    """Yield the board of the worker in this process. It has connections of its own."""
    async with reading_client(parts.redis, CONNECTIONS) as redis:
        namespace = parts.settings.namespace
        feed = _feed(redis, namespace, health.facts, _own_counters)
        async with _running(feed):
            yield BoardPages(feed, streams).site(access)


async def serve_board(
    settings: Settings,
    port: int,
    announce: Callable[[str], object],
) -> None:
    """Serve the board on loopback until cancelled. Tell the address, once it can be opened.

    Raises:
        ConfigurationError: the port is taken, or there is no address of Redis.
        RedisUnavailableError: Redis does not answer.
        RedisUnfitError: the namespace is somebody else's.
    """
    streams = Streams()
    async with opened_redis(settings.redis_url, may_create=False) as redis:
        async with explained(redis):
            await check_ownership(redis, Keys(settings.namespace))
        async with _feed_of_command(settings, redis) as feed:
            site = BoardPages(feed, streams).site(Access(None))
            try:
                server = listening(LOOPBACK, port, {}, sites=[site], streams=streams)
                async with server as (host, free_port):
                    announce(f"http://{host}:{free_port}{PREFIX}")
                    await asyncio.Event().wait()
            except OSError as error:
                raise ConfigurationError(
                    f"Port {port} of {LOOPBACK} cannot be used: {error.strerror}. "
                    "Choose another with --port, or 0 for a free one."
                ) from None


@asynccontextmanager
async def _feed_of_command(settings: Settings, redis: RedisClient) -> AsyncIterator[Feed]:
    """Yield a feed of Redis, and of the worker at TALLY_HTTP if one answers there."""
    namespace = settings.namespace
    tables = Tables(redis, Keys(namespace))
    backlog = BacklogReader(tables, elapsed_clock)
    async with RemoteWorker(settings.http, namespace) as worker:

        async def status() -> Status:
            newest = await backlog.newest() if await _answers(tables) else None
            return {
                **await worker.status(),
                "redis": backlog_status(newest),
                "no_worker": await _no_worker(tables),
            }

        feed = _feed(redis, namespace, status, worker.counters)
        async with _running(feed):
            yield feed


def _feed(
    redis: RedisClient,
    namespace: str,
    status: Callable[[], Awaitable[Status]],
    counters: Callable[[], Awaitable[Counters | None]],
) -> Feed:
    keys = Keys(namespace)
    sources = Sources(
        reader=AsyncTallyReader(redis, namespace),
        tables=Tables(redis, keys),
        journal=Journal(redis, keys),
        status=status,
        counters=counters,
    )
    return Feed(sources)


@asynccontextmanager
async def _running(feed: Feed) -> AsyncIterator[None]:
    running = asyncio.create_task(feed.run())
    try:
        yield
    finally:
        running.cancel()
        await asyncio.wait([running])


async def _no_worker(tables: Tables) -> str | None:
    """Return that no worker runs, empty if one does, None if Redis does not say it."""
    with suppress(TimeoutError, TallyError):
        async with asyncio.timeout(ANSWER_SECONDS):
            return no_worker(await tables.cursors.heartbeat_age())
    return None


async def _answers(tables: Tables) -> bool:
    """Tell whether Redis answers now: what was read before is old without it."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await tables.server.now()
    except (TimeoutError, TallyError):
        return False
    return True


async def _own_counters() -> Counters:
    return Counters.of(_own_metrics())


def _own_metrics() -> Iterable[Metric]:
    for metric in COUNTED:
        yield from metric.collect()
