"""What tests of readers in a cluster share."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar, cast

from redis import RedisCluster as SyncClient
from redis.asyncio import Redis
from redis.asyncio import RedisCluster as Client

from reaction_tally import AsyncTallyReader, RedisUnavailableError, TallyReader
from reaction_tally.keys import Keys
from tests.client.in_thread import InThread
from tests.redis_cluster import RedisCluster
from tests.waiting import wait_until
from worker.errors import TallyError

KEYS: Final = Keys()
Result = TypeVar("Result")
AWAY: Final = (RedisUnavailableError, TallyError)
"""What readers and the worker raise while a node is away."""


@asynccontextmanager
async def given_reader(kind: type, cluster: RedisCluster, **options: Any) -> AsyncIterator[Any]:
    """Yield a reader with a client that an application has made."""
    place: dict[str, Any] = {"host": "127.0.0.1", "port": cluster.up()[0].public_port}
    if kind is TallyReader:
        client = await asyncio.to_thread(lambda: SyncClient(**place, **options))
        yield InThread(TallyReader(client))
        client.close()
        return
    async_client: Any = Client(**place, **options)
    yield AsyncTallyReader(async_client)
    await async_client.aclose()


async def insist(read: Callable[[], Awaitable[Result]]) -> Result:
    """Return what a read answers as soon as it answers."""
    results: list[Result] = []

    async def answers() -> bool:
        try:
            results.append(await read())
        except AWAY:
            return False
        return True

    await wait_until(answers)
    return results[0]


def count_followers(cluster: RedisCluster) -> int:
    """Return how many connections are subscribed to hints, on all nodes."""
    answers = [node.ask("PUBSUB", "NUMSUB", KEYS.hints) for node in cluster.up()]
    return sum(int(count) for _, count in answers)


async def claim(redis: Redis) -> None:
    """Write what a worker writes when it starts, as far as readers look at it."""
    await cast("Any", redis).hset(KEYS.meta, "schema", "1")
