"""The connections of those who follow changes."""

import asyncio
from contextlib import suppress
from typing import Any, cast

import fakeredis
import pytest
import redis as synchronous
from redis.asyncio import Redis

from reaction_tally import (
    AsyncTallyReader,
    TallyReader,
)
from tests.claimed import claim
from tests.client.followers import KEYS, collect, reaction, subscribed
from tests.client.in_thread import InThread
from tests.histories import CHANNEL
from tests.redis_server import RedisServer
from tests.store.examples import apply
from worker.store.store import Store


async def test_an_iterator_that_ends_leaves_no_connection(
    claimed: Redis, store: Store, valkey: RedisServer
) -> None:
    """Closed, cancelled, left by a loop or by an error, or with its event loop."""
    await apply(store, [reaction(1)])
    since = {CHANNEL: "0-0"}

    async def closed(reader: AsyncTallyReader) -> None:
        changes = reader.changes([CHANNEL], since=since)
        await anext(changes)
        await changes.aclose()

    async def left(reader: AsyncTallyReader) -> None:
        async for _ in reader.changes([CHANNEL], since=since):
            break

    async def cancelled(reader: AsyncTallyReader) -> None:
        async for _ in reader.changes([CHANNEL], since=since):
            cast("asyncio.Task[None]", asyncio.current_task()).cancel()

    async def failed(reader: AsyncTallyReader) -> None:
        async for _ in reader.changes([CHANNEL], since=since):
            raise KeyError

    async def in_a_loop_of_its_own(way: Any) -> None:
        async with AsyncTallyReader.from_url(valkey.url) as reader:
            await way(reader)

    for way in (closed, left, cancelled, failed):
        async with AsyncTallyReader.from_url(valkey.url) as reader:
            with suppress(KeyError, asyncio.CancelledError):
                await asyncio.create_task(way(reader))
            await subscribed(claimed, 0)
        with suppress(KeyError, asyncio.CancelledError):
            await asyncio.to_thread(asyncio.run, in_a_loop_of_its_own(way))
        await subscribed(claimed, 0)


async def test_a_blocking_iterator_that_ends_leaves_no_connection(
    claimed: Redis, store: Store, valkey: RedisServer
) -> None:
    """Closed, left by a loop or by an error, or never begun."""
    await apply(store, [reaction(1)])
    since = {CHANNEL: "0-0"}

    def closed(reader: TallyReader) -> None:
        changes = reader.changes([CHANNEL], since=since)
        next(changes)
        changes.close()

    def left(reader: TallyReader) -> None:
        for _ in reader.changes([CHANNEL], since=since):
            break

    def failed(reader: TallyReader) -> None:
        for _ in reader.changes([CHANNEL], since=since):
            raise KeyError

    def never_begun(reader: TallyReader) -> None:
        reader.changes([CHANNEL], since=since)

    with TallyReader.from_url(valkey.url) as reader:
        for way in (closed, left, failed, never_begun):
            with suppress(KeyError):
                await asyncio.to_thread(way, reader)
            await subscribed(claimed, 0)


async def test_many_iterators_take_no_connection_from_reads(
    claimed: Redis, store: Store, valkey: RedisServer
) -> None:
    """Each has one of its own."""
    async with AsyncTallyReader.from_url(f"{valkey.url}?max_connections=2") as reader:
        collecting = [asyncio.create_task(collect(reader, 1, [CHANNEL])) for _ in range(20)]
        await subscribed(claimed, 20)
        await apply(store, [reaction(1)])
        found = await asyncio.gather(*collecting)

    assert [[item.count for item in items] for items in found] == [[1]] * 20


@pytest.mark.parametrize(
    "options",
    [{"decode_responses": False}, {"decode_responses": True}, {"protocol": 2}, {"protocol": 3}],
    ids=str,
)
async def test_a_client_that_exists_already_follows(
    claimed: Redis, store: Store, valkey: RedisServer, options: dict[str, Any]
) -> None:
    """However it decodes. Its connections are left to those who read; who made it closes it."""
    await apply(store, [reaction(1)])
    since = {CHANNEL: "0-0"}
    async with Redis.from_url(valkey.url, max_connections=1, **options) as client:
        (change,) = await collect(AsyncTallyReader(client), 1, [CHANNEL], since=since)
        assert await client.ping()
    with synchronous.Redis.from_url(valkey.url, max_connections=1, **options) as blocking:
        reader = InThread(TallyReader(blocking))
        assert await collect(reader, 1, [CHANNEL], since=since) == [change]
        assert blocking.ping()
    await subscribed(claimed, 0)


async def test_a_fake_redis_is_followed() -> None:
    """As tests of other programs have it."""
    server = fakeredis.FakeServer()
    async with (
        fakeredis.FakeAsyncRedis(server=server, decode_responses=True) as writing,
        fakeredis.FakeAsyncRedis(server=server) as fake,
    ):
        await claim(writing)
        await apply(Store(writing, KEYS), [reaction(1)])
        (change,) = await collect(AsyncTallyReader(fake), 1, [CHANNEL], since={CHANNEL: "0-0"})
    assert change.count == 1
