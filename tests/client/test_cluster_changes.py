"""A page and its changes are exact whatever happens to the nodes of a cluster, or to Sentinels'."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Final, cast

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from reaction_tally import AsyncTallyReader, Reset, TallyReader
from tests.client.clusters import KEYS, claim, count_followers, given_reader, insist
from tests.client.copies import LAST, Copy
from tests.client.followers import reaction
from tests.client.in_thread import InThread
from tests.histories import CHANNEL
from tests.redis_cluster import RedisCluster
from tests.sentinels import Sentinels
from tests.store.random_channel import RandomChannel
from tests.waiting import wait_until
from worker.store.connection import connect

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("often")]
KINDS: Final = (TallyReader, AsyncTallyReader)
SLOT: Final = key_slot(KEYS.head(CHANNEL).encode())
WRITES: Final = 40


@pytest.fixture
async def redis(redis_cluster: RedisCluster) -> AsyncIterator[Redis]:
    """A worker's client of a cluster with a namespace that a worker has claimed."""
    async with connect(redis_cluster.url) as client:
        await claim(client)
        yield client
        # A thread of a test that failed may still follow it. That ends, too.
        await cast("Any", client).delete(KEYS.meta)


async def keep(reader: Any, copy: Copy, messages: list[str]) -> None:
    """Keep a copy up to date, until it has the last value; insist on each page."""

    async def read() -> Any:
        return await reader.page(CHANNEL, messages)

    async with aclosing(reader.changes([CHANNEL], since=copy.since)) as changes:
        async for item in changes:
            if copy.take(item):
                copy.read(await insist(read))
                cast("Reset", item).continue_from(copy.position)
            if copy.has(LAST):
                return


async def follow(reader: Any, channel: RandomChannel, mishap: Any) -> Copy:
    """Follow while others write, and while a mishap happens; expect an exact copy; return it."""

    async def read() -> Any:
        return await reader.page(CHANNEL, channel.messages)

    copy = Copy(CHANNEL)
    copy.read(await insist(read))
    following = asyncio.create_task(keep(reader, copy, channel.messages))
    for _ in range(WRITES):
        await insist(channel.write)
    happening = asyncio.create_task(asyncio.to_thread(mishap))
    while not happening.done():
        await insist(channel.write)
    await happening
    for _ in range(WRITES):
        await insist(channel.write)
    await insist(lambda: channel.write(reaction(0, LAST)))
    await following
    held, position = dict(copy.held[copy.position]), copy.position
    copy.read(await insist(read))
    assert (position, held) == (copy.position, copy.held[copy.position])
    return copy


def kill(cluster: RedisCluster) -> None:
    """End the channel's primary as a crash does; let the replica take its place."""
    primary = cluster.owner(SLOT)
    (replica,) = cluster.replicas_of(primary)
    primary.kill()
    cluster.fail_over(replica, "TAKEOVER")
    primary.start()
    cluster.wait_until_healthy()


def fail_over(cluster: RedisCluster) -> None:
    """Let each primary change places with its replica, as planned."""
    for primary in cluster.primaries():
        (replica,) = cluster.replicas_of(primary)
        cluster.fail_over(replica)
        cluster.wait_until_healthy()


def move(cluster: RedisCluster) -> None:
    """Move the channel's slot around, key by key."""
    first = cluster.owner(SLOT)
    others = [node for node in cluster.primaries() if node is not first]
    for node in [*others, first]:
        cluster.move_slots([SLOT], node)


MISHAPS: Final = {"killed": kill, "failed over": fail_over, "moved": move}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mishap", MISHAPS)
async def test_a_copy_is_exact_whatever_happens_to_nodes(
    redis_cluster: RedisCluster, redis: Redis, kind: type, mishap: str
) -> None:
    """If a replica lacked something, the copy is reset. What is planned loses nothing."""
    channel = RandomChannel(redis)
    async with given_reader(kind, redis_cluster) as reader:
        copy = await follow(reader, channel, lambda: MISHAPS[mishap](redis_cluster))
    assert copy.resets == 0 or mishap == "killed"


@pytest.mark.parametrize("kind", KINDS)
async def test_hints_come_from_another_node_when_theirs_ends(
    redis_cluster: RedisCluster, redis: Redis, kind: type
) -> None:
    """The same iterator goes on."""
    channel = RandomChannel(redis)
    nodes = redis_cluster.up()

    def heard() -> Any:
        counts = {node: node.ask("PUBSUB", "NUMSUB", KEYS.hints)[1] for node in redis_cluster.up()}
        return [node for node in nodes if counts.get(node)]

    async with (
        given_reader(kind, redis_cluster) as reader,
        aclosing(reader.changes([CHANNEL])) as changes,
    ):
        coming = asyncio.create_task(anext(changes))
        await wait_until(heard)
        (node,) = heard()
        (replica,) = redis_cluster.replicas_of(node)
        await asyncio.to_thread(node.kill)
        replica.ask("CLUSTER", "FAILOVER", "TAKEOVER")
        await wait_until(heard)
        await insist(lambda: channel.write(reaction(0, LAST)))
        assert (await coming).channel == CHANNEL
    await asyncio.to_thread(node.start)
    await wait_until(lambda: count_followers(redis_cluster) == 0)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_copy_is_exact_through_a_failover_of_sentinels(kind: Any) -> None:
    """The reader follows to the server that they name."""
    with Sentinels() as sentinels:
        async with connect(sentinels.url) as redis:
            await claim(redis)
            reader = kind.from_url(sentinels.url)
            reader = InThread(reader) if kind is TallyReader else reader
            channel = RandomChannel(redis)
            await follow(reader, channel, sentinels.fail_over)
            await reader.close()
