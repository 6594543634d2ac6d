"""Readers read from a Redis Cluster what they read from one server."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any, Final, cast

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from reaction_tally import (
    AsyncTallyReader,
    NotPermittedError,
    NotTheseTalliesError,
    Page,
    RedisUnavailableError,
    TallyReader,
)
from tests.client.clusters import KEYS, claim, count_followers, given_reader, insist
from tests.client.followers import collect, reaction
from tests.client.in_thread import InThread
from tests.histories import CHANNEL, MESSAGE
from tests.redis_cluster import RedisCluster
from tests.store.examples import apply
from tests.store.random_channel import RandomChannel
from tests.waiting import wait_until
from worker.store.connection import connect
from worker.store.reader import Tallies
from worker.store.store import Store

pytestmark = pytest.mark.processes
KINDS: Final = (TallyReader, AsyncTallyReader)
README: Final = Path(__file__).parents[2] / "client" / "README.md"
CHANNELS: Final = tuple(f"c{number}" for number in range(60))


@pytest.fixture
async def redis(redis_cluster: RedisCluster) -> AsyncIterator[Redis]:
    """A worker's client of a cluster with a namespace that a worker has claimed."""
    async with connect(redis_cluster.url) as client:
        await claim(client)
        yield client
        # A thread of a test that failed may still follow it. That ends, too.
        await cast("Any", client).delete(KEYS.meta)


@pytest.fixture
def store(redis: Redis) -> Store:
    """Return what writes."""
    return Store(redis, KEYS)


@pytest.fixture(params=KINDS)
async def reader(
    request: pytest.FixtureRequest, redis_cluster: RedisCluster, redis: Redis
) -> AsyncIterator[Any]:
    """A reader of each kind, with a client that an application has made."""
    async with given_reader(request.param, redis_cluster) as reader:
        yield reader


def let_read(cluster: RedisCluster, *rules: str) -> str:
    """Let a user read what the README says, with these rules besides; return the address."""
    parts = re.findall(r"`(~tally:[^`]*|&tally:changed [^`]*)`", README.read_text("utf-8"))
    needed = " ".join(parts).split(" ")
    for node in cluster.up():
        node.ask("ACL", "SETUSER", "reads", "reset", "on", ">it", *needed, *rules)
    return cluster.url.replace("://", "://reads:it@")


def forget_user(cluster: RedisCluster) -> None:
    """Take the user away."""
    for node in cluster.up():
        node.ask("ACL", "DELUSER", "reads")


async def test_a_page_is_the_same_with_and_without_scripts(
    redis_cluster: RedisCluster, redis: Redis, reader: Any
) -> None:
    """Both are of one instant, on the node that has the channel."""
    channel = RandomChannel(redis, 1)
    async with AsyncTallyReader.from_url(let_read(redis_cluster)) as steps:
        for _ in range(20):
            await channel.write()
            options: dict[str, Any] = {"me": "ana", "names": channel.random.randrange(3)}
            page: Page = await reader.page(CHANNEL, channel.messages, **options)
            assert page == await steps.page(CHANNEL, channel.messages, **options)
            assert page.position == await channel.head()
            counts = {timetoken: each.counts for timetoken, each in page.messages.items()}
            assert counts == await reader.get_many(CHANNEL, channel.messages)
    forget_user(redis_cluster)
    assert any(counts.values())


async def test_every_read_works_wherever_its_channel_is(
    redis: Redis, store: Store, reader: Any
) -> None:
    """Some reads have keys on several nodes."""
    for channel in CHANNELS:
        await apply(store, [reaction(1, channel=channel)], channel=channel)
        await cast("Any", redis).sadd(KEYS.channels, channel)
    await cast("Any", redis).hset(KEYS.owed(CHANNELS[7]), "overflow", 1)

    await reader.check()
    assert await reader.channels() == set(CHANNELS)
    assert await reader.in_doubt(CHANNELS) == {CHANNELS[7]}
    assert await reader.heartbeat_age() is None
    for channel in CHANNELS:
        who = await reader.who(channel, MESSAGE, "reaction", "👍")
        assert (who.total, [each.user for each in who.reactors]) == (1, ["user-1"])
        (top,) = await reader.top(channel)
        (recent,) = await reader.recent(channel)
        assert (top.timetoken, recent.timetoken) == (MESSAGE, MESSAGE)


async def test_changes_of_all_channels_come_from_all_nodes(
    redis_cluster: RedisCluster, redis: Redis, store: Store, reader: Any
) -> None:
    """At once: a hint reaches every node. New channels are among them."""
    since: dict[str, str] = {}
    collecting = asyncio.create_task(collect(reader, len(CHANNELS), None, since=since))
    await wait_until(lambda: count_followers(redis_cluster))
    for channel in CHANNELS:
        await apply(store, [reaction(1, channel=channel)], channel=channel)

    items = await collecting
    assert {item.channel for item in items} == set(CHANNELS)


async def test_another_namespace_is_no_empty_answer(redis: Redis, reader: Any) -> None:
    """Also if it was emptied since the last read: the schema is on another node."""
    await reader.page(CHANNEL, [MESSAGE])
    await cast("Any", redis).delete(KEYS.meta)
    with pytest.raises(NotTheseTalliesError, match="the Redis Cluster of"):
        await reader.page(CHANNEL, [MESSAGE])
    with pytest.raises(NotTheseTalliesError):
        await reader.who(CHANNEL, MESSAGE, "reaction", "👍")


@pytest.mark.parametrize("kind", KINDS)
async def test_reads_wait_for_a_connection(
    redis_cluster: RedisCluster, store: Store, kind: type
) -> None:
    """As many at once as an application likes, also where the pool of its client does not wait."""
    await apply(store, [reaction(1)])
    async with given_reader(kind, redis_cluster, max_connections=3) as reader:
        reads = [reader.page(CHANNEL, [MESSAGE]) for _ in range(200)]
        reads += [reader.who(CHANNEL, MESSAGE, "reaction", "👍") for _ in range(20)]
        found = await asyncio.gather(*reads)
    assert {each.messages[MESSAGE].total for each in found[:200]} == {1}
    assert {each.total for each in found[200:]} == {1}


@pytest.mark.parametrize("rule", ["+@scripting", "+evalsha +script|load"])
async def test_a_script_is_brought_to_the_node_that_needs_it(
    redis_cluster: RedisCluster, store: Store, rule: str
) -> None:
    """Scripts are no data: a replica has none when it becomes the primary."""
    await apply(store, [reaction(1)])
    url = let_read(redis_cluster, *rule.split())
    primary = redis_cluster.primary_of(KEYS.head(CHANNEL))
    (replica,) = redis_cluster.replicas_of(primary)
    async with AsyncTallyReader.from_url(url) as reader:
        before = await reader.page(CHANNEL, [MESSAGE])
        await asyncio.to_thread(redis_cluster.fail_over, replica)
        assert await insist(lambda: reader.page(CHANNEL, [MESSAGE])) == before
        replica.ask("CONFIG", "RESETSTAT")
        assert await reader.page(CHANNEL, [MESSAGE]) == before
    used = replica.ask("INFO", "commandstats")
    forget_user(redis_cluster)
    assert "cmdstat_evalsha" in used
    assert "cmdstat_exec" not in used


async def test_while_a_slot_moves_a_page_is_right_or_refused(
    redis_cluster: RedisCluster, redis: Redis, reader: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never half of it: its keys are on two nodes."""
    monkeypatch.setattr("reaction_tally.nodes.PAUSES", (0.0, 0.0))
    channel = RandomChannel(redis)
    for _ in range(20):
        await channel.write()
    page = await reader.page(CHANNEL, channel.messages)
    slot = key_slot(KEYS.head(CHANNEL).encode())
    to = next(node for node in redis_cluster.primaries() if node is not redis_cluster.owner(slot))
    source = await asyncio.to_thread(redis_cluster.begin_move, slot, to)
    random = Random(0)
    keys = source.ask("CLUSTER", "GETKEYSINSLOT", slot, 100)
    refused: list[str] = []
    for key in random.sample(keys, len(keys)):
        source.ask("MIGRATE", "127.0.0.1", to.public_port, key, 0, 5000)
        try:
            assert await reader.page(CHANNEL, channel.messages) == page
        except RedisUnavailableError as error:
            refused.append(str(error))
    await asyncio.to_thread(redis_cluster.finish_move, slot, source, to)

    assert await insist(lambda: reader.page(CHANNEL, channel.messages)) == page
    assert refused
    assert all("moves the slot" in error for error in refused)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_cluster_that_is_away_is_said_and_found_again(kind: type) -> None:
    """All nodes at once."""
    with RedisCluster(3, 0) as cluster:
        async with connect(cluster.url) as redis:
            await claim(redis)
        async with given_reader(kind, cluster) as reader:
            await reader.check()
            nodes = cluster.up()
            for node in nodes:
                node.kill()
            with pytest.raises(RedisUnavailableError):
                await reader.page(CHANNEL, [MESSAGE])
            for node in nodes:
                node.start()
            await insist(reader.check)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_node_that_hangs_is_left_when_another_takes_its_place(
    redis_cluster: RedisCluster, store: Store, kind: Any
) -> None:
    """Its connections stay open, and nothing answers on them."""
    await apply(store, [reaction(1)])
    primary = redis_cluster.primary_of(KEYS.head(CHANNEL))
    (replica,) = redis_cluster.replicas_of(primary)
    reader = kind.from_url(
        redis_cluster.address(socket_timeout="0.5", socket_connect_timeout="0.5")
    )
    reader = InThread(reader) if kind is TallyReader else reader
    before = await insist(lambda: reader.page(CHANNEL, [MESSAGE]))
    primary.pause()
    try:
        with pytest.raises(RedisUnavailableError):
            await reader.page(CHANNEL, [MESSAGE])
        replica.ask("CLUSTER", "FAILOVER", "TAKEOVER")
        assert await insist(lambda: reader.page(CHANNEL, [MESSAGE])) == before
    finally:
        primary.resume()
    await reader.close()


async def test_the_worker_reads_and_follows_with_its_own_client(
    redis_cluster: RedisCluster, redis: Redis, store: Store
) -> None:
    """Its connections are of a kind of their own, and its reader runs no script."""
    await apply(store, [reaction(1)])
    await cast("Any", redis).sadd(KEYS.channels, CHANNEL)
    tallies = Tallies(redis, KEYS)
    assert await tallies.is_known(CHANNEL)
    page = await tallies.reader.page(CHANNEL, [MESSAGE], names=1)
    assert page.messages[MESSAGE].reactions[0].names == ("user-1",)

    since = {CHANNEL: page.position}
    collecting = asyncio.create_task(collect(tallies.reader, 1, since=since))
    await wait_until(lambda: count_followers(redis_cluster))
    await apply(store, [reaction(2)])
    (change,) = await collecting
    assert change.count == 2


@pytest.mark.parametrize("kind", KINDS)
async def test_a_user_who_may_not_read_is_told(redis_cluster: RedisCluster, kind: Any) -> None:
    """In the words of one server."""
    url = let_read(redis_cluster, "-hget")
    reader = kind.from_url(url)
    reader = InThread(reader) if kind is TallyReader else reader
    with pytest.raises(NotPermittedError, match="hget"):
        await reader.check()
    await reader.close()
    forget_user(redis_cluster)
