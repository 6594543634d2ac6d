"""Another Redis server takes over: everything is owed there, and the old server gets no writes."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import cycle
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from tests.bench.bench import CLAIM, KEYS, SETTLE_SECONDS, claimed_recovery
from tests.bench.waiting import LONGEST_SECONDS
from tests.cursors import save_cursor
from tests.histories import CHANNEL, added
from tests.redis_server import Forwarder, RedisServer
from tests.waiting import wait_until
from worker.applying.apply import Applier
from worker.applying.rollback import RollbackRecovery
from worker.domain.action import Origin
from worker.domain.position import Cursor
from worker.source.backoff import elapsed_clock
from worker.store.connection import connect, recovery_client
from worker.store.cursors import SavedCursor
from worker.store.ownership import Ownership
from worker.store.pending_repairs import GapCause
from worker.store.redis_retry import RedisRetry
from worker.store.rollback_detector import RollbackDetector
from worker.store.store import Store
from worker.store.tables import Tables


@pytest.fixture(scope="module")
def other() -> Iterator[RedisServer]:
    """Start a second server."""
    server = RedisServer()
    yield server
    server.stop()


@pytest.fixture
async def first(valkey: RedisServer) -> AsyncIterator[Redis]:
    """Yield a client of the first server, emptied before."""
    async with connect(valkey.url) as redis:
        await redis.flushall()
        yield redis


@pytest.fixture
async def second(other: RedisServer) -> AsyncIterator[Redis]:
    """Yield a client of the second server, emptied before."""
    async with connect(other.url) as redis:
        await redis.flushall()
        yield redis


@dataclass
class Process:
    """What a worker uses to speak to Redis."""

    redis: Redis
    tables: Tables
    applier: Applier

    async def writes(self, number: int) -> None:
        """Apply an event and save a cursor."""
        await self.applier.apply([added(number)], Origin.LIVE, elapsed_clock())
        await save_cursor(self.tables.cursors, f"subscription{number}", Cursor("1", 1))


@asynccontextmanager
async def process(url: str) -> AsyncIterator[Process]:
    """Yield the parts of a worker that has spoken to the first server."""
    rollback_detector = RollbackDetector()
    async with connect(url, rollback_detector) as redis, recovery_client(redis) as whatever_answers:
        recovery = await claimed_recovery(
            rollback_detector,
            whatever_answers,
            [CHANNEL],
            (redis.connection_pool, whatever_answers.connection_pool),
        )
        retry = RedisRetry(elapsed_clock, rollback_detector, recovery.run)
        tables = Tables(redis, KEYS, retry)
        applier = Applier(Store(redis, KEYS), tables, retry, SETTLE_SECONDS)
        await tables.server.now()
        yield Process(redis, tables, applier)


async def everything(redis: Redis) -> dict[str, Any]:
    """Return all that a Redis holds."""
    return {key: await cast("Any", redis).dump(key) async for key in redis.scan_iter()}


async def owed(redis: Redis) -> set[str]:
    """Return why the channel is owed a repair there."""
    return set(await Tables(redis, KEYS).pending.read(CHANNEL))


async def test_the_old_server_gets_no_writes(
    valkey: RedisServer, other: RedisServer, first: Redis, second: Redis
) -> None:
    """It lives, takes writes, and has open connections. New connections lead elsewhere."""
    async with Forwarder(valkey.port) as door, process(door.url) as it:
        await it.tables.channels.add([CHANNEL])
        await asyncio.gather(*(it.writes(number) for number in range(4)))
        door.lead_to(other.port)  # existing connections stay

        # More calls than connections: a new connection is made, and refused.
        await asyncio.gather(*(it.tables.server.now() for _ in range(20)))
        assert it.applier.rollback_detector.generation == 1
        assert await owed(second) == {GapCause.REDIS_WENT_BACK}
        before = await everything(first)
        await asyncio.gather(*(it.writes(number) for number in range(10, 30)))

        assert await everything(first) == before
        assert len(await second.keys(KEYS.cursor("*"))) == 20
        assert (
            await cast("Any", second).hlen(
                KEYS.actions(CHANNEL, added(10).identity.message_timetoken)
            )
            >= 1
        )
        assert (it.applier.rollback_detector.generation, await owed(first)) == (1, set())


async def test_a_second_move_is_marked_there(
    valkey: RedisServer, other: RedisServer, first: Redis, second: Redis
) -> None:
    """Marks go to the newest server, not down a connection of the move before."""
    async with Forwarder(valkey.port) as door, process(door.url) as it:
        await door.switch(other.port)
        await it.tables.server.now()
        await first.flushall()
        door.lead_to(valkey.port)
        await it.redis.connection_pool.disconnect()

        await asyncio.wait_for(it.tables.server.now(), LONGEST_SECONDS)

        assert it.applier.rollback_detector.generation == 2
        assert await owed(first) == {GapCause.REDIS_WENT_BACK}


async def test_a_lost_cursor_takes_no_mark_along(
    valkey: RedisServer, other: RedisServer, first: Redis, second: Redis
) -> None:
    """The mark came before the cursor, so that cursor proved it. A replica has neither."""
    async with Forwarder(valkey.port) as door, process(door.url) as it:
        await it.tables.channels.add([CHANNEL])
        await it.writes(1)
        await copied(valkey, other)
        await it.tables.pending.mark([CHANNEL], GapCause.UNPROVEN)
        await save_cursor(it.tables.cursors, "subscription1", Cursor("2", 1), known=1)

        await door.switch(other.port)
        await it.tables.server.now()

        assert it.applier.rollback_detector.generation == 1
        assert await owed(first) == await owed(second) == {GapCause.UNPROVEN}


async def copied(server: RedisServer, other: RedisServer) -> None:
    """Give the other server what this one holds now."""
    async with Redis.from_url(server.url) as redis, Redis.from_url(other.url) as replica:
        async for key in redis.scan_iter():
            await replica.restore(key, 0, await cast("Any", redis).dump(key))


class Revolving(Forwarder):
    """A door that leads to each server in turn."""

    def __init__(self, *ports: int) -> None:
        super().__init__(ports[0])
        self.ports = cycle(ports)

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.lead_to(next(self.ports))
        await super()._lead(reader, writer)


@pytest.mark.usefixtures("first", "second")
async def test_an_alternating_address_makes_no_hot_loop(
    monkeypatch: pytest.MonkeyPatch, valkey: RedisServer, other: RedisServer
) -> None:
    """Each wait is longer, until the address leads to one server."""
    monkeypatch.setattr("worker.store.redis_retry.FIRST_WAIT_SECONDS", 0.02)
    loop = asyncio.get_running_loop()
    async with Revolving(valkey.port, other.port) as door, process(door.url) as it:
        rollback_detector = it.applier.rollback_detector
        await it.redis.connection_pool.disconnect()
        began = loop.time()

        asking = asyncio.create_task(it.tables.server.now())
        await wait_until(lambda: rollback_detector.generation == 4)

        assert not asking.done()
        assert loop.time() - began >= 0.02 + 0.04 + 0.08
        door.ports = cycle([other.port])
        await asyncio.wait_for(asking, LONGEST_SECONDS)
        assert not rollback_detector.is_suspect


async def test_a_write_under_way_is_marked(valkey: RedisServer, first: Redis) -> None:
    """It ends while the recovery asks Redis for the channels, so nobody else knows of it."""
    detector = RollbackDetector()
    tables = Tables(first, KEYS)
    known = tables.channels.all

    async def all_and_a_write() -> frozenset[str]:
        channels = await known()
        detector.observe("late", "0-0", "0-0", "1-0")
        return channels

    tables.channels.all = all_and_a_write  # type: ignore[method-assign]
    detector.suspect("a test")
    await RollbackRecovery(detector, tables, Ownership(first, KEYS, CLAIM), [CHANNEL]).run()

    assert set(await tables.pending.read_all([CHANNEL, "late"])) == {CHANNEL, "late"}


async def test_a_subscription_may_end_during_the_comparison(first: Redis) -> None:
    """It says nothing about Redis, and nothing is owed."""
    detector = RollbackDetector()
    tables, saves = Tables(first, KEYS), detector.acknowledged.saves
    ownership = Ownership(first, KEYS, CLAIM)
    await ownership.claim()
    saves["subscription"] = await save_cursor(tables.cursors, "subscription", Cursor("1", 1))
    read = tables.cursors.read_all

    async def read_and_end(subscriptions: Sequence[str]) -> list[SavedCursor | None]:
        saves.clear()
        return await read(subscriptions)

    tables.cursors.read_all = read_and_end  # type: ignore[method-assign]
    detector.is_suspect = True
    await RollbackRecovery(detector, tables, ownership, [CHANNEL]).run()

    assert not detector.is_suspect
    assert not await tables.pending.read_all([CHANNEL])
