"""Clients of a Redis Cluster and of what Sentinels name: connected, cut off, led elsewhere."""

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Final

import pytest
from redis import exceptions
from redis.asyncio import Redis
from redis.crc import key_slot

from reaction_tally import AsyncTallyReader, NotTheseTalliesError, TallyReader
from tests.redis_cluster import RedisCluster
from tests.sentinels import SERVICE, Sentinels
from tests.server_nodes import Login, Node, Nodes
from tests.waiting import wait_until
from worker.errors import RedisUnavailableError, RedisUnfitError, TallyError
from worker.store.connection import (
    connect,
    pool_of,
    reading_client,
    recovery_client,
)
from worker.store.kinds import describe
from worker.store.preflight import COMMANDS, check_fitness
from worker.store.redis_errors import redis_errors, translated
from worker.store.rollback_detector import RollbackDetector
from worker.store.servers import is_cluster

pytestmark = pytest.mark.processes

REDIS: Final = shutil.which("redis-server")
"""Debian's Redis has TLS; the embedded Valkey is built without."""
LOGIN: Final = Login("tally", "p:w/d@%1 ?#")
PATIENT: Final = 30_000
"""Milliseconds: nobody is taken for dead because the machine is busy."""
OF_SENTINELS: Final = {"sentinel_password": "se:cret", "down_milliseconds": PATIENT}


@pytest.fixture(params=[RedisCluster, Sentinels])
def secured(request: pytest.FixtureRequest) -> Iterator[Nodes]:
    """A cluster, or what Sentinels name, with TLS, a user, and Sentinels with a password."""
    if not REDIS:
        pytest.skip("needs redis-server, which speaks TLS")
    own = OF_SENTINELS if request.param is Sentinels else {"replicas": 0}
    with request.param(program=Path(REDIS), login=LOGIN, tls=True, **own) as nodes:
        yield nodes


async def test_a_user_and_tls(secured: Any) -> None:
    """Worker and readers reach the data, and nobody does without the password."""
    async with connect(secured.url) as redis:
        await redis.set("{a}:x", "1")
        assert await redis.get("{a}:x") == "1"
    with pytest.raises(NotTheseTalliesError):
        await asyncio.to_thread(TallyReader.from_url(secured.url).channels)
    async with AsyncTallyReader.from_url(secured.url) as reader:
        with pytest.raises(NotTheseTalliesError):
            await reader.channels()

    wrong = secured.url.replace("p%3Aw", "other")
    async with connect(wrong) as redis:
        with pytest.raises(RedisUnavailableError, match="credentials in REDIS_URL"), redis_errors():
            await redis.get("{a}:x")


async def test_clients_of_the_same_address(redis_cluster: RedisCluster) -> None:
    """One that accepts any server, one to read: each has connections of its own."""
    async with connect(redis_cluster.url, RollbackDetector()) as redis:
        assert is_cluster(redis)
        await redis.set("key", b"\xff")
        async with recovery_client(redis) as recovery, reading_client(redis, 2) as reading:
            assert await recovery.exists("key") == 1
            assert await reading.get("key") == "\\xff"
            await recovery.set("key", "text")
        assert await redis.get("key") == "text"
        await pool_of(redis).disconnect()
        assert await redis.get("key") == "text"


async def test_what_a_cluster_is(redis_cluster: RedisCluster) -> None:
    """In words for people; and a node is refused whose address is written like one server's."""
    node = redis_cluster.nodes[0]
    async with connect(redis_cluster.url) as redis:
        found = await describe(redis)
    async with connect(node.url) as alone:
        with pytest.raises(RedisUnfitError) as error:
            await check_fitness(alone)

    assert found.text == (
        "It is a Redis Cluster: 3 primaries and 3 replicas; 16384 of 16384 slots are covered."
    )
    assert not found.worry
    assert f"{node.address} is a node of a Redis Cluster. Write REDIS_URL=redis+cluster://" in str(
        error.value
    )


async def test_a_user_of_a_cluster_may_ask_for_its_slots() -> None:
    """The file of users permits that. Without it, the sentence says what to type."""
    with RedisCluster(primaries=1, replicas=0) as cluster:
        (node,) = cluster.nodes
        rules = ("on", ">word", "~tally:*", *COMMANDS)
        node.ask("ACL", "SETUSER", "tally", "reset", *rules)
        url = cluster.url.replace("://", "://tally:word@")
        async with connect(url) as redis:
            await redis.set("tally:x", "1")
            assert await redis.get("tally:x") == "1"
        node.ask("ACL", "SETUSER", "tally", "-cluster|slots")
        async with connect(url) as redis:
            with pytest.raises(RedisUnfitError, match=r"ACL SETUSER tally .*'\+cluster\|slots'$"):
                await check_fitness(redis)


async def test_another_primary_takes_the_place_of_a_dead_one() -> None:
    """Calls fail meanwhile, each within moments, and then succeed; scripts too."""
    with RedisCluster(primaries=3) as cluster:
        async with connect(cluster.url) as redis:
            await redis.set("key", "before")
            dead = cluster.primary_of("key")
            (replica,) = cluster.replicas_of(dead)
            dead.kill()

            with pytest.raises(RedisUnavailableError), redis_errors():
                await redis.get("key")
            await asyncio.to_thread(cluster.wait_for_failover, replica)
            await wait_until(lambda: succeeds(redis, "key"))
            assert await redis.get("key") == "before"


async def succeeds(redis: Redis, key: str) -> bool:
    """Tell whether a key can be written."""
    with suppress(TallyError), redis_errors():
        return bool(await redis.append(key, ""))  # its length
    return False


async def test_an_error_of_one_shard_leaves_the_others_alone() -> None:
    """A call that waits for a node that is well is not cut off."""
    with RedisCluster(primaries=3, replicas=0, cluster_require_full_coverage="no") as cluster:
        async with connect(cluster.address(socket_timeout="90")) as redis:
            names = [f"key-{number}" for number in range(100)]
            dead = cluster.primary_of(names[0])
            other = next(name for name in names if cluster.primary_of(name) is not dead)
            client: Any = redis
            waiting = asyncio.create_task(client.blpop([other], timeout=0))
            await wait_until(lambda: blocked(cluster.primary_of(other)))
            dead.kill()

            for _ in range(3):
                with pytest.raises(RedisUnavailableError), redis_errors():
                    await redis.get(names[0])
                with pytest.raises(RedisUnavailableError), redis_errors():
                    await client.pipeline().get(names[0]).execute()
            await client.rpush(other, "arrived")
            assert tuple(await waiting) == (other, "arrived")


def blocked(node: Any) -> bool:
    """Tell whether a client waits in a blocking command."""
    return bool(node.info()["blocked_clients"])


async def test_all_nodes_away_at_once_and_back() -> None:
    """The client finds them again, by the hosts in its address."""
    with RedisCluster(primaries=3, replicas=0) as cluster:
        async with connect(cluster.url) as redis:
            await redis.set("key", "kept")
            for node in cluster.nodes:
                node.kill()
            for _ in range(2):
                with pytest.raises(RedisUnavailableError), redis_errors():
                    await redis.get("key")
            for node in cluster.nodes:
                await asyncio.to_thread(node.start)
            await asyncio.to_thread(cluster.wait_until_ok)

            await wait_until(lambda: succeeds(redis, "key"))
            assert await redis.get("key") == "kept"


async def test_slots_that_move(redis_cluster: RedisCluster) -> None:
    """Half moved, a key is found on either side; moved, the client learns where.

    The user may do no more than a worker. Redis 6.2 has ASKING in another category: only its
    name permits it there.
    """
    rules = [*COMMANDS]
    rules.insert(rules.index("+@connection") + 1, "-asking")
    for node in redis_cluster.up():
        node.ask("ACL", "SETUSER", "tally", "reset", "on", ">word", "~*", *rules)
    async with connect(redis_cluster.url.replace("://", "://tally:word@")) as redis:
        await redis.set("{a}:1", "one")
        source = redis_cluster.primary_of("{a}:1")
        target = next(node for node in redis_cluster.primaries() if node is not source)
        slot = client_slot("{a}:1")
        redis_cluster.begin_move(slot, target)
        assert await redis.get("{a}:1") == "one"
        await redis.set("{a}:2", "new")
        redis_cluster.move_keys(slot, source, target)
        assert await redis.get("{a}:1") == "one"
        # The node that asks first may be asked on a connection of its own.
        kept = keys_of(redis_cluster, target, 4)
        for count in range(1, 5):
            await asyncio.gather(*map(redis.get, kept[:count]))
            assert await redis.get("{a}:1") == "one"
        redis_cluster.finish_move(slot, source, target)
        await asyncio.to_thread(redis_cluster.wait_until_ok)
        assert [await redis.get(key) for key in ("{a}:1", "{a}:2")] == ["one", "new"]
        assert redis_cluster.primary_of("{a}:1") is target
        await asyncio.to_thread(redis_cluster.move_slots, [slot], source)
        assert await redis.get("{a}:1") == "one"
    for node in redis_cluster.up():
        node.ask("ACL", "DELUSER", "tally")


async def test_the_first_slot_of_a_new_node() -> None:
    """It is in no list of nodes until it has that slot. Its keys may be there long before."""
    with RedisCluster(1, 0) as cluster:
        async with connect(cluster.url) as redis:
            await redis.set("{a}:1", "one")
            target = await asyncio.to_thread(cluster.add_node)
            slot = client_slot("{a}:1")
            source = cluster.begin_move(slot, target)
            cluster.move_keys(slot, source, target)
            assert await redis.get("{a}:1") == "one"
            pipe = redis.pipeline()
            pipe.get("{a}:1")
            assert await pipe.execute() == ["one"]


def keys_of(cluster: RedisCluster, node: Node, count: int) -> list[str]:
    """Return keys of a node."""
    keys = (f"key-{number}" for number in range(1000))
    return list(islice((key for key in keys if cluster.primary_of(key) is node), count))


def client_slot(key: str) -> int:
    """Return the slot of a key."""
    return key_slot(key.encode())


async def test_a_failover_by_sentinels_is_suspect(sentinels: Sentinels) -> None:
    """The client follows the primary, and the detector holds it back until it is compared."""
    detector = RollbackDetector()
    async with connect(sentinels.url, detector) as redis, recovery_client(redis) as recovery:
        await redis.set("key", "1")
        found = await describe(redis)
        assert f"for the service '{SERVICE}': {sentinels.primary().address}" in found.text
        assert "with 2 replicas; 3 of the 3 Sentinels in REDIS_URL know it." in found.text
        dead = sentinels.kill_primary()
        await asyncio.to_thread(sentinels.wait_for_failover, dead)

        with pytest.raises(TallyError), redis_errors():
            await redis.set("key", "2")
        await wait_until(lambda: detector.is_suspect or refuses(redis))
        assert detector.is_suspect
        assert detector.server == sentinels.primary().address
        assert await recovery.get("key") == "1"


async def test_a_dead_replica_is_not_counted() -> None:
    """Sentinels remember it until somebody tells them not to."""
    with Sentinels(replicas=2, sentinels=1, down_milliseconds=PATIENT) as sentinels:
        sentinels.replicas()[0].kill()
        await wait_until(lambda: sentinels.primary().info()["connected_slaves"] == 1)
        async with connect(sentinels.url) as redis:
            found = await describe(redis)

    assert "with 1 replica; 1 of the 1 Sentinels" in found.text


async def refuses(redis: Redis) -> bool:
    """Write; False whatever comes of it."""
    with suppress(TallyError), redis_errors():
        await redis.set("key", "2")
    return False


async def test_sentinels_that_are_away_are_passed_over() -> None:
    """One of three is enough; with none, the sentence names each."""
    with Sentinels(replicas=0, down_milliseconds=PATIENT) as sentinels:
        url = sentinels.url
        for sentinel in sentinels.sentinels[:2]:
            sentinel.kill()
        async with connect(url) as redis:
            await redis.set("key", "1")
        sentinels.sentinels[2].kill()
        async with connect(url) as redis:
            with pytest.raises(RedisUnavailableError) as error, redis_errors():
                await redis.get("key")

    assert str(error.value).startswith("No Sentinel in REDIS_URL answers: Error 111 connecting to ")
    assert all(sentinel.address in str(error.value) for sentinel in sentinels.sentinels)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (exceptions.MovedError("13095 127.0.0.1:17103"), "MOVED or ASK 13095 127.0.0.1:17103"),
        (exceptions.AskError("13095 127.0.0.1:17103"), "MOVED or ASK 13095 127.0.0.1:17103"),
        (exceptions.TryAgainError("Multiple keys"), "moves the keys of a slot now: Multiple keys"),
        (exceptions.ClusterDownError("The cluster is down"), "does not serve now"),
        (exceptions.MasterDownError("Link with MASTER is down"), "its primary is away"),
        (exceptions.SlotNotCoveredError("Slot 5"), "does not serve every slot now"),
        (exceptions.RedisClusterException("All slots are not covered"), "Are all its primaries up"),
        (exceptions.ClusterError("TTL exhausted."), "do not agree where a key is"),
        (exceptions.MaxConnectionsError(), "max_connections in REDIS_URL"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_passes_is_tried_again(error: Exception, words: str) -> None:
    """With words of its own."""
    found = translated(error)
    assert isinstance(found, RedisUnavailableError)
    assert words in str(found)


def test_a_number_of_a_database_in_a_cluster() -> None:
    """The node refuses it; the sentence says what it is."""
    error = exceptions.ResponseError("SELECT is not allowed in cluster mode")
    assert "write redis+cluster://" in str(translated(error)).lower()
    assert isinstance(translated(error), RedisUnfitError)
