"""Readers of both kinds, of a namespace with tallies."""

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from reaction_tally import AsyncTallyReader, TallyReader
from reaction_tally.keys import Keys
from tests.claimed import claim
from tests.client.in_thread import InThread
from tests.client.readers import Readers, both_readers
from tests.redis_server import RedisServer
from worker.store.store import Store


@pytest.fixture
async def claimed(real_redis: Redis) -> AsyncIterator[Redis]:
    """An empty namespace that a worker has claimed."""
    await claim(real_redis)
    yield real_redis
    # A thread of a test that failed may still follow it. That ends, too.
    await cast("Any", real_redis).delete(Keys().meta)


@pytest.fixture(params=[TallyReader, AsyncTallyReader])
async def reader(
    request: pytest.FixtureRequest, valkey: RedisServer, claimed: Redis
) -> AsyncIterator[Any]:
    """A reader of each kind; its reads are awaited."""
    if request.param is TallyReader:
        with TallyReader.from_url(valkey.url) as reader:
            yield InThread(reader)
    else:
        async with AsyncTallyReader.from_url(valkey.url) as reader:
            yield reader


@pytest.fixture
async def readers(valkey: RedisServer, claimed: Redis) -> AsyncIterator[Readers]:
    """Readers with and without scripts."""
    async with both_readers(valkey.url, claimed) as readers:
        yield readers


@pytest.fixture
def store(claimed: Redis) -> Store:
    """Return what writes."""
    return Store(claimed, Keys())


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let followers read the heads often, and few entries at once."""
    monkeypatch.setattr("reaction_tally.changes.COMPARE_SECONDS", 0.05)
    monkeypatch.setattr("reaction_tally.changes.FIRST_PAUSE", 0.01)
    monkeypatch.setattr("reaction_tally.following.ENTRIES", 5)
