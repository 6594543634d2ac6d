"""``tally channels``: what each channel is owed and why, the urgent ones first."""

import time
from typing import Any, Final, cast

import pytest
from redis.asyncio import Redis

from reaction_tally.keys import Keys
from tests.redis_server import RedisServer
from worker.reading.channels import ChannelList, Choice, read_channels
from worker.store.pending_repairs import GapCause, PendingRepairs
from worker.store.proofs import Proofs

KEYS: Final = Keys()
MANY: Final = 3_000


@pytest.fixture
async def redis_with_channels(real_redis: Redis) -> Any:
    """A Redis with three channels, the last of which changed last."""
    client = cast("Any", real_redis)
    await client.hset(KEYS.meta, "schema", "1")
    for number, channel in enumerate(("news.a", "news.b", "room")):
        await client.sadd(KEYS.channels, channel)
        await client.set(KEYS.head(channel), f"{1000 + number}-0")
    return client


def names(listed: ChannelList) -> list[str]:
    """Return the channels."""
    return [row.channel for row in listed.channels]


async def read(valkey: RedisServer, **choice: Any) -> ChannelList:
    """Return the channels of a choice, now."""
    return await read_channels(valkey.url, "tally", Choice(**choice), time.time())


async def test_those_that_are_owed_come_first(
    redis_with_channels: Any, valkey: RedisServer
) -> None:
    """Then those that changed last. What a worker does not repair by itself is late."""
    repairs = PendingRepairs(redis_with_channels, KEYS)
    await repairs.mark(["news.a"], GapCause.STALE_CURSOR)
    await repairs.mark(["news.b"], GapCause.UNPROVEN)
    await Proofs(redis_with_channels, KEYS).note("room", 5_000)
    await redis_with_channels.zadd(KEYS.messages("room"), {"1": 1, "2": 1})

    listed = await read(valkey)

    assert names(listed) == ["news.b", "news.a", "room"]
    unproven, stale, room = listed.channels
    assert (set(unproven.owed), unproven.is_late) == ({"unproven"}, True)
    assert (set(stale.owed), stale.is_late) == ({"stale_cursor"}, False)
    assert (room.owed, room.is_late, room.messages) == ({}, False, 2)
    assert (room.proof.recent, room.proof.whole, room.proof.changed) == (5_000, 5_000, 1002)
    assert (listed.known, listed.matching, listed.owed) == (3, 3, 2)
    assert names(await read(valkey, is_owed=True)) == ["news.b", "news.a"]


async def test_a_pattern_is_that_of_a_shell(redis_with_channels: Any, valkey: RedisServer) -> None:
    """A name matches itself, whatever is in it."""
    await redis_with_channels.sadd(KEYS.channels, "a.[red]x")

    listed = await read(valkey, pattern="news.*")

    assert names(listed) == ["news.b", "news.a"]
    assert (listed.known, listed.matching) == (4, 2)
    assert names(await read(valkey, pattern="a.[red]x")) == ["a.[red]x"]
    assert names(await read(valkey, pattern="nothing*")) == []


async def test_a_damaged_channel_is_listed(redis_with_channels: Any, valkey: RedisServer) -> None:
    """What another program wrote says nothing, or that a repair is needed."""
    await redis_with_channels.rpush(KEYS.messages("room"), "not ours")
    await redis_with_channels.set(KEYS.owed("room"), "not ours")
    await redis_with_channels.set(KEYS.head("news.a"), "not ours")

    listed = await read(valkey)

    assert names(listed)[0] == "room"
    assert listed.channels[0].messages == 0
    assert listed.channels[0].owed == {"damaged_key": 0}
    await redis_with_channels.delete(KEYS.messages("room"))


async def test_many_channels_take_few_round_trips(
    redis_with_channels: Any, valkey: RedisServer
) -> None:
    """The busiest are shown, and how many there are is said."""
    channels = [f"room-{number}" for number in range(MANY)]
    await redis_with_channels.sadd(KEYS.channels, *channels)
    await redis_with_channels.mset({KEYS.head(each): "2000-0" for each in channels})
    await redis_with_channels.config_resetstat()

    listed = await read(valkey, limit=10)

    stats = await redis_with_channels.info("commandstats")
    assert sum(command["calls"] for command in stats.values()) < 100
    assert (len(listed.channels), listed.known) == (10, MANY + 3)
    assert all(name.startswith("room-") for name in names(listed))
