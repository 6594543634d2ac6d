"""A Redis that went back is noticed: another server, or an older state; and nothing else."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from reaction_tally.journal import START
from reaction_tally.keys import Keys
from tests.histories import CHANNEL, added
from tests.redis_server import Forwarder, MortalServer, RedisServer, free_port
from tests.store.examples import apply
from tests.waiting import wait_until
from worker.errors import RedisReplacedError, RedisUnavailableError
from worker.store.connection import connect, recovery_client
from worker.store.pending_repairs import GapCause
from worker.store.redis_errors import redis_errors
from worker.store.rollback_detector import RollbackDetector, read_run_id
from worker.store.store import Store
from worker.store.tables import Tables

KEYS = Keys()


@pytest.fixture(scope="module")
def other() -> Iterator[RedisServer]:
    """Start a second server."""
    server = RedisServer()
    yield server
    server.stop()


@pytest.fixture
async def door(valkey: RedisServer, other: RedisServer) -> AsyncIterator[Forwarder]:
    """Open an address that leads to the first of two empty servers."""
    for server in (valkey, other):
        async with connect(server.url) as redis:
            await redis.flushall()
    async with Forwarder(valkey.port) as door:
        yield door


@asynccontextmanager
async def checked_client(url: str) -> AsyncIterator[tuple[Redis, RollbackDetector]]:
    """Yield a client that has used its server once, and its detector."""
    detector = RollbackDetector()
    async with connect(url, detector) as redis:
        await redis.get("tally:meta")
        yield redis, detector


async def write(redis: Redis, channel: str = CHANNEL) -> None:
    """Write something that stays."""
    await Tables(redis, KEYS).channels.add([channel])


@asynccontextmanager
async def demoted(url: str) -> AsyncIterator[None]:
    """Make a server the replica of a primary that does not answer."""
    async with connect(url) as redis:
        await redis.replicaof("127.0.0.1", str(free_port()))
        try:
            yield
        finally:
            await redis.replicaof("NO", "ONE")


async def test_a_recovery_client_leaves_no_connection_behind(real_redis: Redis) -> None:
    """A worker may recover more than once."""
    before = await connections(real_redis)
    async with recovery_client(real_redis) as client:
        assert await client.get("tally:meta") is None
        opened = await connections(real_redis) - before

    assert len(opened) == 1
    await wait_until(lambda: are_closed(real_redis, opened))


async def connections(redis: Redis) -> set[str]:
    """Return the ids of the server's connections."""
    return {client["id"] for client in await redis.client_list()}


async def are_closed(redis: Redis, ids: set[str]) -> bool:
    """Tell whether the server has none of these connections."""
    return not ids & await connections(redis)


async def test_a_broken_connection_is_no_alarm(door: Forwarder, valkey: RedisServer) -> None:
    """The same server answers again, on several connections."""
    async with checked_client(door.url) as (redis, detector):
        for _ in range(3):
            await door.switch(valkey.port)
            await asyncio.gather(*(write(redis, f"channel{number}") for number in range(5)))

        assert not detector.is_suspect
        assert detector.generation == 0
        assert len(await Tables(redis, KEYS).channels.all()) == 5


async def test_another_server_is_refused_until_accepted(
    door: Forwarder, valkey: RedisServer, other: RedisServer
) -> None:
    """Only the recovery's client may write. Then the old server is refused: it lacks a write."""
    async with (
        checked_client(door.url) as (redis, detector),
        recovery_client(redis) as recovery_redis,
    ):
        await door.switch(other.port)

        for _ in range(3):
            with pytest.raises(RedisReplacedError):
                await write(redis)
            assert detector.is_suspect
        tables = Tables(recovery_redis, KEYS)
        assert await tables.channels.all() == frozenset()

        detector.accept(await tables.server.run_id())
        await write(redis)

        assert await tables.channels.all() == {CHANNEL}
        assert (detector.is_suspect, detector.generation) == (False, 1)

        await door.switch(valkey.port)

        with pytest.raises(RedisReplacedError):
            await write(redis)


async def test_a_restarted_server_is_refused(tmp_path: Path) -> None:
    """What it has lost cannot be seen from outside."""
    server = MortalServer(tmp_path)
    try:
        async with checked_client(server.url) as (redis, detector):
            await server.end()
            with pytest.raises(RedisUnavailableError):
                await write(redis)
            assert not detector.is_suspect

            await server.revive()

            with pytest.raises(RedisReplacedError):
                await write(redis)
    finally:
        server.destroy()


async def test_a_server_without_run_id_is_no_alarm(
    door: Forwarder, valkey: RedisServer, other: RedisServer
) -> None:
    """An ACL may refuse INFO. Then only heads and cursors show that Redis went back."""
    url = door.url.replace("//", "//mute:any@")
    async with (
        without_info(valkey.url),
        without_info(other.url),
        checked_client(url) as (redis, detector),
    ):
        with pytest.raises(RedisUnavailableError), redis_errors():
            await redis.info("server")
        await write(redis)
        await door.switch(other.port)
        await write(redis)
        assert (detector.is_suspect, detector.generation) == (False, 0)


@asynccontextmanager
async def without_info(url: str) -> AsyncIterator[None]:
    """Give a server the user ``mute``, who may not use INFO."""
    async with connect(url) as redis:
        acl = cast("Any", redis).execute_command
        await acl("ACL", "SETUSER", "mute", "on", "nopass", "~*", "&*", "+@all", "-info")
        try:
            yield
        finally:
            await acl("ACL", "DELUSER", "mute")


def test_the_run_id_is_read_from_info() -> None:
    """Servers write it; some proxies do not."""
    info = "# Server\r\nredis_version:7.2.4\r\nrun_id:4f2c\r\ntcp_port:6379\r\n"
    assert read_run_id(info) == "4f2c"
    assert read_run_id("# Server\r\nredis_version:6.0.0\r\n") is None
    assert read_run_id("") is None


async def test_a_server_is_identified_by_its_run(real_redis: Redis) -> None:
    """A new connection reads the same id as the table."""
    run_id = await Tables(real_redis, KEYS).server.run_id()
    assert run_id
    assert len(run_id) == 40
    options = real_redis.connection_pool.connection_kwargs
    detector = RollbackDetector()
    detector.accept(run_id)
    async with connect(f"redis://{options['host']}:{options['port']}", detector) as redis:
        await redis.get("tally:meta")
    assert not detector.is_suspect


@pytest.mark.parametrize("kind", ["script", "pipeline", "command"])
async def test_a_replica_leads_to_a_new_connection(
    door: Forwarder, valkey: RedisServer, other: RedisServer, kind: str
) -> None:
    """A replica refuses writes for ever. A new connection may lead to the primary."""
    places = iter(range(10))

    async def write_to(redis: Redis) -> None:
        match kind:
            case "script":
                await apply(Store(redis, KEYS), [added(next(places))])
            case "pipeline":
                await Tables(redis, KEYS).pending.mark([CHANNEL, "hall"], GapCause.OVERFLOW)
            case _:
                await write(redis)

    async with connect(other.url) as second, connect(door.url) as redis:
        await write_to(redis)
        async with demoted(valkey.url):
            with pytest.raises(RedisUnavailableError):
                await write_to(redis)
            door.lead_to(other.port)
            await write_to(redis)
            assert await second.dbsize() > 0


async def test_a_demoted_server_is_not_left_unnoticed(
    door: Forwarder, valkey: RedisServer, other: RedisServer
) -> None:
    """The new connection is refused: first, all that the new primary may lack is marked."""
    async with checked_client(door.url) as (redis, detector), demoted(valkey.url):
        door.lead_to(other.port)
        with pytest.raises(RedisReplacedError):
            await write(redis)
        assert detector.is_suspect


def test_answers_out_of_order_are_no_alarm() -> None:
    """An answer is compared with the head known when its request was sent."""
    detector = RollbackDetector()
    known = detector.newest_head("room")

    assert detector.observe("room", known, "1-0", "2-0")
    assert detector.observe("room", known, START, "1-0")

    assert detector.newest_head("room") == "2-0"
    assert not detector.is_suspect


@pytest.mark.parametrize(
    ("known", "before"),
    [("5-0", "4-9"), ("5-10", "5-9"), ("1000-0", "999-0"), ("5-1", START), ("0-1", START)],
)
def test_a_head_that_went_back_is_noticed(known: str, before: str) -> None:
    """Ids are compared as numbers. An equal or newer head is no alarm."""
    detector = RollbackDetector()
    assert detector.observe("room", detector.newest_head("room"), START, known)
    assert detector.observe("room", detector.newest_head("room"), known, known)
    assert detector.generation == 0

    assert not detector.observe("room", detector.newest_head("room"), before, "2000-0")

    assert detector.is_suspect
    assert detector.generation == 0
    assert detector.newest_head("room") == known


def test_an_accepted_redis_may_be_older() -> None:
    """A smaller head is no alarm then; the channels written to stay known."""
    detector = RollbackDetector()
    detector.observe("room", START, START, "9-0")
    detector.suspect("it went back")

    detector.accept(None)

    assert detector.generation == 1
    assert detector.acknowledged.channels == frozenset({"room"})
    assert not detector.is_suspect
    assert detector.observe("room", detector.newest_head("room"), "3-0", "4-0")
