"""What every test may ask for: a real Redis, a fake one, both in turn."""

import re
import signal
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator

import fakeredis
import pytest
from redis.asyncio import Redis

from tests.redis_cluster import RedisCluster
from tests.redis_server import RedisServer
from tests.sentinels import Sentinels
from worker.store.connection import connect

PERMANENT = re.compile(
    r"[\w.-]+:(channels|meta|round|proven|proven:full|quarantine|forgotten|cursor:\w+|\{.*\}:(counts:.*|actions:.*|who:.*|messages|head|owed|progress))",
    re.DOTALL,
)
NO_LIFE = -1
"""What PTTL says of a key that stays; of one that has just ended it says -2."""


def pytest_configure() -> None:
    """Listen to interrupts, also in a background job or under nohup, which ignore them."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the promises that were not tried, by reason: mostly a missing program."""
    untried: defaultdict[str, list[str]] = defaultdict(list)
    for report in terminalreporter.stats.get("skipped", []):
        untried[str(report.longrepr[-1]).removeprefix("Skipped: ")].append(report.nodeid)
    if untried:
        terminalreporter.section("promises that were not tried")
    for reason, promises in sorted(untried.items()):
        terminalreporter.line(reason)
        for promise in sorted(promises):
            terminalreporter.line(f"    {promise}")


@pytest.fixture(scope="session")
def valkey() -> Iterator[RedisServer]:
    """One real Valkey for the whole run (one for each process of it)."""
    server = RedisServer()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def cluster_of_the_run() -> Iterator[RedisCluster]:
    """Three primaries with a replica each, for the whole run. Tests ask for ``redis_cluster``."""
    with RedisCluster() as cluster:
        cluster.have_patience()
        yield cluster


@pytest.fixture
def redis_cluster(cluster_of_the_run: RedisCluster) -> RedisCluster:
    """A healthy cluster without keys. A test that ends nodes starts them again, or has its own."""
    cluster_of_the_run.wait_until_healthy()
    cluster_of_the_run.clear()
    return cluster_of_the_run


@pytest.fixture
def sentinels() -> Iterator[Sentinels]:
    """One primary, two replicas and three sentinels, of this test alone."""
    with Sentinels() as sentinels:
        yield sentinels


@pytest.fixture
async def real_redis(valkey: RedisServer) -> AsyncIterator[Redis]:
    """A client of the real Valkey, emptied before."""
    async with connect(valkey.url) as client:
        await client.flushall()
        yield client
        await _expect_every_key_to_end(client)


@pytest.fixture(params=["fakeredis", "valkey"])
async def redis(request: pytest.FixtureRequest, valkey: RedisServer) -> AsyncIterator[Redis]:
    """A client, first of fakeredis (quick), then of a real server (proof); emptied before."""
    fake = request.param == "fakeredis"
    async with (
        fakeredis.FakeAsyncRedis(decode_responses=True) if fake else connect(valkey.url) as client
    ):
        await client.flushall()
        yield client
        await _expect_every_key_to_end(client)


async def _expect_every_key_to_end(redis: Redis) -> None:
    """Expect every key to be permanent by its name, or to have a life."""
    async for key in redis.scan_iter():
        assert PERMANENT.fullmatch(key) or await redis.pttl(key) != NO_LIFE, (
            f"{key} would stay for ever"
        )
