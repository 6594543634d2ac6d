"""What another program wrote into Redis concerns its channel alone."""

from typing import Any, cast

from redis.asyncio import Redis

from reaction_tally.keys import Keys
from tests.api.served import Served
from tests.client.followers import reaction
from tests.histories import CHANNEL
from tests.redis_server import RedisServer
from tests.store.examples import apply
from tests.waiting import wait_until
from worker.store.store import Store

KEYS = Keys()


async def test_bytes_that_are_no_text_end_no_stream(
    api: Served, claimed: Redis, store: Store, valkey: RedisServer
) -> None:
    """A name, a hint and an entry that are no UTF-8: the streams of all go on."""
    some, everything = await api.follow(CHANNEL), await api.follow()
    async with Redis.from_url(valkey.url) as raw:
        redis = cast("Any", raw)
        await redis.sadd(KEYS.channels, b"\xff\xfe")
        added = await redis.xadd(KEYS.journal("third"), {b"after": b"\xff", b"changes": b"\xfe"})
        await redis.set(KEYS.head("third"), added)
        await redis.publish(KEYS.hints, b"\xff " + added)
        await redis.publish(KEYS.hints, b"third " + added)
    await wait_until(lambda: comes(everything, "third"))
    await apply(store, [reaction(1)])
    assert await comes(some, CHANNEL)
    assert await comes(everything, CHANNEL)
    again = await api.follow(CHANNEL)
    await apply(store, [reaction(2)])
    assert await comes(again, CHANNEL)
    for client in (some, everything, again):
        client.leave()
    await cast("Any", claimed).flushall()


async def comes(events: Any, channel: str) -> bool:
    """Read events until one of a channel comes."""
    while True:
        _, data = await events.next()
        if data["channel"] == channel:
            return True
