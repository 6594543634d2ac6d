"""Noticing a Redis that is not what it was: another server, or an older state; and nothing else."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from tests.histories import CHANNEL, added, removed
from tests.redis_server import Forwarder, MortalServer, RedisServer, free_port
from tests.waiting import wait_until
from worker.domain.action import Origin
from worker.errors import RedisReplacedError, RedisUnavailableError
from worker.store.connection import connect, redis_errors, unguarded
from worker.store.keys import Keys
from worker.store.marks import GapCause, Marks
from worker.store.rollback_detector import NOTHING, RollbackDetector, run_id
from worker.store.store import Store

KEYS = Keys()


@pytest.fixture(scope="module")
def other() -> Iterator[RedisServer]:
    """A second server."""
    server = RedisServer()
    yield server
    server.stop()


@pytest.fixture
async def door(valkey: RedisServer, other: RedisServer) -> AsyncIterator[Forwarder]:
    """An address that leads to the first of two empty servers."""
    for server in (valkey, other):
        async with connect(server.url) as redis:
            await redis.flushall()
    async with Forwarder(valkey.port) as door:
        yield door


@asynccontextmanager
async def guarded(url: str) -> AsyncIterator[tuple[Redis, RollbackDetector]]:
    """Yield a client that has spoken to whatever is there, and what it has seen."""
    rollback_detector = RollbackDetector()
    async with connect(url, rollback_detector) as redis:
        await redis.get("tally:meta")
        yield redis, rollback_detector


async def remember(redis: Redis, channel: str = CHANNEL) -> None:
    """Write something that stays."""
    await Marks(redis, KEYS).remember([channel])


async def test_an_unguarded_client_leaves_no_connection_behind(real_redis: Redis) -> None:
    """A worker may recover more than once."""
    before = await connections(real_redis)
    async with unguarded(real_redis) as client:
        assert await client.get("tally:meta") is None
        made = await connections(real_redis) - before

    assert len(made) == 1
    await wait_until(lambda: is_gone(real_redis, made))


async def connections(redis: Redis) -> set[str]:
    """Return the connections the server has, by their ids."""
    return {client["id"] for client in await redis.client_list()}


async def is_gone(redis: Redis, some: set[str]) -> bool:
    """Tell whether the server has none of these connections."""
    return not some & await connections(redis)


async def test_a_connection_that_breaks_is_no_alarm(door: Forwarder, valkey: RedisServer) -> None:
    """The same server answers again, on as many connections as are asked for."""
    async with guarded(door.url) as (redis, rollback_detector):
        for _ in range(3):
            await door.switch(valkey.port)
            await asyncio.gather(*(remember(redis, f"channel{number}") for number in range(5)))

        assert not rollback_detector.is_suspect
        assert rollback_detector.generation == 0
        assert len(await Marks(redis, KEYS).channels()) == 5


async def test_another_server_is_refused_until_accepted(
    door: Forwarder, other: RedisServer
) -> None:
    """Again and again; nothing is written there, save by the one that is to put things right."""
    async with guarded(door.url) as (redis, rollback_detector), unguarded(redis) as unguarded_redis:
        await door.switch(other.port)

        for _ in range(3):
            with pytest.raises(RedisReplacedError):
                await remember(redis)
            assert rollback_detector.is_suspect
        marks = Marks(unguarded_redis, KEYS)
        assert await marks.channels() == frozenset()

        rollback_detector.accept(await marks.server())
        await remember(redis)

        assert await marks.channels() == {CHANNEL}
        assert (rollback_detector.is_suspect, rollback_detector.generation) == (False, 1)


async def test_the_server_before_is_refused_once_another_is_accepted(
    door: Forwarder, valkey: RedisServer, other: RedisServer
) -> None:
    """It lacks what was written since."""
    async with guarded(door.url) as (redis, rollback_detector), unguarded(redis) as unguarded_redis:
        await door.switch(other.port)
        rollback_detector.accept(await Marks(unguarded_redis, KEYS).server())
        await remember(redis)

        await door.switch(valkey.port)

        with pytest.raises(RedisReplacedError):
            await remember(redis)


async def test_a_server_that_restarts_is_refused(tmp_path: Path) -> None:
    """Nobody can tell from outside what it has lost."""
    server = MortalServer(tmp_path)
    try:
        async with guarded(server.url) as (redis, rollback_detector):
            await server.end()
            with pytest.raises(RedisUnavailableError):
                await remember(redis)
            assert not rollback_detector.is_suspect

            await server.revive()

            with pytest.raises(RedisReplacedError):
                await remember(redis)
    finally:
        server.destroy()


async def test_a_server_that_says_nothing_of_itself_is_no_alarm(
    door: Forwarder, valkey: RedisServer, other: RedisServer
) -> None:
    """An ACL may refuse INFO: then heads and cursors are all there is to go by."""
    async with (
        mute(valkey.url),
        mute(other.url),
        guarded(door.url.replace("//", "//mute:any@")) as (redis, rollback_detector),
    ):
        with pytest.raises(RedisUnavailableError), redis_errors():
            await redis.info("server")
        await remember(redis)
        await door.switch(other.port)
        await remember(redis)
        assert (rollback_detector.is_suspect, rollback_detector.generation) == (False, 0)


@asynccontextmanager
async def mute(url: str) -> AsyncIterator[None]:
    """Let a server have a user who is not told what it is."""
    async with connect(url) as redis:
        acl = cast("Any", redis).execute_command
        await acl("ACL", "SETUSER", "mute", "on", "nopass", "~*", "&*", "+@all", "-info")
        try:
            yield
        finally:
            await acl("ACL", "DELUSER", "mute")


def test_a_run_is_known_by_its_id() -> None:
    """From INFO as servers write it, and proxies do not."""
    assert run_id("# Server\r\nredis_version:7.2.4\r\nrun_id:4f2c\r\ntcp_port:6379\r\n") == "4f2c"
    assert run_id("# Server\r\nredis_version:6.0.0\r\n") is None
    assert run_id("") is None


@pytest.mark.parametrize("write", ["script", "pipeline", "command"])
async def test_a_replica_leads_to_a_new_connection(
    door: Forwarder, valkey: RedisServer, other: RedisServer, write: str
) -> None:
    """It refuses writes for ever; its address may lead to the primary by now, on a new connection."""
    places = iter(range(10))

    async def write_to(redis: Redis) -> None:
        match write:
            case "script":
                await Store(redis, KEYS).apply(CHANNEL, [added(next(places))], Origin.LIVE)
            case "pipeline":
                await Marks(redis, KEYS).owe([CHANNEL], GapCause.OVERFLOW)
            case _:
                await remember(redis)

    async with (
        connect(valkey.url) as first,
        connect(other.url) as second,
        connect(door.url) as redis,
    ):
        await write_to(redis)
        await first.replicaof("127.0.0.1", str(free_port()))
        try:
            with pytest.raises(RedisUnavailableError):
                await write_to(redis)
            door.lead_to(other.port)
            await write_to(redis)
            assert await second.dbsize() > 0
        finally:
            await first.replicaof("NO", "ONE")


async def test_a_demoted_server_is_not_left_for_another_unnoticed(
    door: Forwarder, valkey: RedisServer, other: RedisServer
) -> None:
    """The new connection is refused: what the new primary lacks is owed first."""
    async with connect(valkey.url) as first, guarded(door.url) as (redis, rollback_detector):
        await first.replicaof("127.0.0.1", str(free_port()))
        try:
            door.lead_to(other.port)
            with pytest.raises(RedisReplacedError):
                await remember(redis)
            assert rollback_detector.is_suspect
        finally:
            await first.replicaof("NO", "ONE")


async def test_what_this_process_writes_is_no_alarm(real_redis: Redis) -> None:
    """Side by side with others, whose entries come between; many at once, answered in whatever order."""
    rollback_detector, store, another = (
        RollbackDetector(),
        Store(real_redis, KEYS),
        Store(real_redis, KEYS),
    )

    async def write(place: int) -> None:
        known = rollback_detector.head(CHANNEL)
        applied = await store.apply(CHANNEL, [added(place)], Origin.LIVE)
        assert rollback_detector.follow(CHANNEL, known, applied.head_before, applied.head_after)

    for start in range(0, 100, 20):
        others = [another.apply(CHANNEL, [removed(start + n)], Origin.LIVE) for n in range(20)]
        await asyncio.gather(*others, *(write(start + n) for n in range(20)))
    await write(100)  # the last word is its own

    assert not rollback_detector.is_suspect
    assert rollback_detector.head(CHANNEL) == await cast("Any", real_redis).get(KEYS.head(CHANNEL))
    assert rollback_detector.channels == {CHANNEL}


def test_answers_out_of_order_are_no_alarm() -> None:
    """What counts is what was known when it was sent; the newest head seen stays."""
    rollback_detector = RollbackDetector()
    known = rollback_detector.head("room")

    assert rollback_detector.follow("room", known, "1-0", "2-0")
    assert rollback_detector.follow("room", known, NOTHING, "1-0")

    assert rollback_detector.head("room") == "2-0"
    assert not rollback_detector.is_suspect


@pytest.mark.parametrize(
    ("known", "before"),
    [("5-0", "4-9"), ("5-10", "5-9"), ("1000-0", "999-0"), ("5-1", NOTHING), ("0-1", NOTHING)],
)
def test_a_head_that_went_back_is_noticed(known: str, before: str) -> None:
    """Ids are compared as numbers, not as text; one that is as it was, or further on, is no alarm."""
    rollback_detector = RollbackDetector()
    assert rollback_detector.follow("room", rollback_detector.head("room"), NOTHING, known)
    assert rollback_detector.follow("room", rollback_detector.head("room"), known, known)
    assert rollback_detector.generation == 0

    assert not rollback_detector.follow("room", rollback_detector.head("room"), before, "2000-0")

    assert rollback_detector.is_suspect
    assert rollback_detector.generation == 0
    assert rollback_detector.head("room") == known


def test_what_was_seen_before_counts_no_longer_once_accepted() -> None:
    """The next head is smaller than the last one, and that is as it must be."""
    rollback_detector = RollbackDetector()
    rollback_detector.follow("room", NOTHING, NOTHING, "9-0")
    rollback_detector.suspect("it went back")

    rollback_detector.accept(None)

    assert (rollback_detector.generation, rollback_detector.channels) == (
        1,
        frozenset({"room"}),
    )  # which may be all that remembers it
    assert not rollback_detector.is_suspect
    assert rollback_detector.follow("room", rollback_detector.head("room"), "3-0", "4-0")
