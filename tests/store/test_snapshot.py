"""One message is read without more than is shown of it."""

from typing import Any, cast

from redis.asyncio import Redis

from reaction_tally.keys import Keys
from tests.histories import CHANNEL, MESSAGE, added
from tests.store.examples import apply
from worker.store.snapshot import read_tallies
from worker.store.store import Store

KEYS = Keys()


async def test_counts_are_read_without_actions(redis: Redis) -> None:
    """There may be 25,000 of them; here another program has written their key."""
    await apply(Store(redis, KEYS), [added(1)])
    key = KEYS.actions(CHANNEL, MESSAGE)
    await redis.delete(key)
    await cast("Any", redis).set(key, "not ours")

    assert await read_tallies(redis, KEYS, CHANNEL, MESSAGE) == {"reaction": {"👍": 1}}
