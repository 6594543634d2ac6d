"""Readers of both kinds, of a namespace with tallies."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from reaction_tally import AsyncTallyReader, TallyReader
from tests.claimed import claim
from tests.redis_server import RedisServer


class InThread:
    """A synchronous reader whose reads are awaited: each runs in a thread."""

    def __init__(self, reader: TallyReader) -> None:
        self._reader = reader

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Return a read of this name."""
        return lambda *args, **options: asyncio.to_thread(
            getattr(self._reader, name), *args, **options
        )


@pytest.fixture
async def claimed(real_redis: Redis) -> Redis:
    """An empty namespace that a worker has claimed."""
    await claim(real_redis)
    return real_redis


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
