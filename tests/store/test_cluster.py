"""What the store does on a real cluster: keys of any slots, scripts on every node, replicas."""

import asyncio
from collections.abc import AsyncIterator, Collection
from typing import Any, Final

import pytest

from reaction_tally.keys import Keys
from tests.cursors import save_cursor
from tests.histories import ANA, added
from tests.redis_cluster import RedisCluster
from worker.domain.action import Identity, Origin
from worker.domain.position import Cursor
from worker.errors import RedisUnavailableError, RedisUnfitError
from worker.store.audit import Audit
from worker.store.connection import connect
from worker.store.journal import Journal
from worker.store.key_scan import ChannelScan
from worker.store.pending_repairs import GapCause
from worker.store.preflight import check_fitness, check_permissions
from worker.store.script_call import CursorSave
from worker.store.servers import keys_of_servers
from worker.store.shard_signs import ShardSigns
from worker.store.snapshot import read_snapshot
from worker.store.store import Applied, Store
from worker.store.tables import Tables

KEYS: Final = Keys("tally")
ROOMS: Final = tuple(f"room-{number}" for number in range(40))
ANA_THERE: Final = (ANA.message_timetoken, ANA.type, ANA.value, ANA.uuid)
CURSOR: Final = Cursor("17600000000000000", 1)


@pytest.fixture
async def redis(redis_cluster: RedisCluster) -> AsyncIterator[Any]:
    """Yield a client of an empty cluster."""
    async with connect(redis_cluster.url) as client:
        yield client


@pytest.fixture
def tables(redis: Any) -> Tables:
    """Return the tables of an empty cluster."""
    return Tables(redis, KEYS)


async def fill(store: Store, rooms: Collection[str] = ROOMS, place: int = 10) -> list[str]:
    """Apply one event in each room; return the outcomes."""
    batches = [(room, [added(place, Identity(room, *ANA_THERE))]) for room in rooms]
    save = CursorSave("subscription", CURSOR)
    results, saved = await store.apply_all(batches, Origin.LIVE, [save])
    assert (saved, save.number) == ([], None)
    return [result.letters for result in results if isinstance(result, Applied)]


async def test_channels_of_all_slots_are_applied_at_once(redis: Any, tables: Tables) -> None:
    """The cursor is left to the next call: it lies on another server."""
    store = Store(redis, KEYS)
    assert await fill(store) == ["a"] * len(ROOMS)
    assert await fill(store) == ["d"] * len(ROOMS)

    heads = await tables.heads.read(ROOMS)
    assert len(set(heads)) == len(ROOMS)
    assert await tables.heads.lost(heads.items()) == set()
    proofs = [proof async for _, proof in tables.proofs.scan(ROOMS)]
    assert all(proof.changed for proof in proofs)
    assert await Audit(redis, KEYS).channels(ROOMS) == []


async def test_marks_cursors_and_names_are_kept(tables: Tables) -> None:
    """Each lies where its name says."""
    await tables.owe(ROOMS, GapCause.OVERFLOW)
    signed = CursorSave("first", CURSOR, signs="one two")
    await tables.cursors.save(signed, CursorSave("second", CURSOR))

    assert (await tables.pending.read_all(ROOMS)).keys() == set(ROOMS)
    assert await tables.channels.all() == set(ROOMS)
    first, second = await tables.cursors.read_all(["first", "second"])
    assert first
    assert second
    assert (first.cursor, first.signs, second.signs) == (CURSOR, "one two", "")


async def test_a_cursor_that_redis_has_forgotten_is_not_saved(tables: Tables) -> None:
    """As on one server."""
    assert await save_cursor(tables.cursors, "first", CURSOR) == 1
    assert await save_cursor(tables.cursors, "first", CURSOR, known=1) == 2
    assert await save_cursor(tables.cursors, "first", CURSOR, known=3) == 0


async def test_what_is_read_at_one_instant_is_of_one_channel(redis: Any) -> None:
    """Journals of many channels are asked for together."""
    await fill(Store(redis, KEYS))

    starts = [start async for start in Journal(redis, KEYS).starts(ROOMS, "0-0")]
    assert [start.channel for start in starts] == list(ROOMS)
    assert all(start.head != "0-0" for start in starts)
    snapshot = await read_snapshot(redis, KEYS, "room-7", ANA.message_timetoken)
    assert snapshot.counts == {"reaction": {"👍": 1}}


async def test_every_primary_is_searched(redis: Any) -> None:
    """Channels are found by their keys."""
    await fill(Store(redis, KEYS))
    assert await ChannelScan(redis, KEYS).channels() == set(ROOMS)


async def test_every_primary_is_checked(redis: Any, redis_cluster: RedisCluster) -> None:
    """One of them may be full, or set otherwise."""
    probes = await keys_of_servers(redis, KEYS.probe)
    owners = {redis_cluster.primary_of(key).address for key in probes}
    assert owners == {node.address for node in redis_cluster.primaries()}
    await check_fitness(redis)
    await check_permissions(redis, KEYS)

    _, _, full = redis_cluster.primaries()
    full.ask("CONFIG", "SET", "maxmemory", 1)
    try:
        with pytest.raises(RedisUnfitError, match=f"At {full.address}: Redis is full"):
            await check_fitness(redis)
        with pytest.raises(RedisUnavailableError, match=f"At {full.address}: .*it is full"):
            await check_permissions(redis, KEYS)
    finally:
        full.ask("CONFIG", "SET", "maxmemory", 0)


async def test_the_node_without_the_user_is_named(
    redis_cluster: RedisCluster,
) -> None:
    """The others know it, so who asks one of them finds nothing wrong."""
    first, *others, last = redis_cluster.primaries()
    for node in (first, *others, last):
        node.ask("ACL", "SETUSER", "somebody", "on", ">word", "~*", "&*", "+@all")
    last.ask("ACL", "SETUSER", "somebody", "resetpass")
    url = redis_cluster.url.replace("://", "://somebody:word@")
    try:
        async with connect(url) as redis:
            with pytest.raises(RedisUnavailableError, match=f"At {last.address}: .*credentials"):
                await check_fitness(redis)
            last.ask("ACL", "SETUSER", "somebody", ">word", "-hset")
            with pytest.raises(RedisUnfitError, match=f"At {last.address}: .*uses HSET"):
                await check_permissions(redis, KEYS)
    finally:
        for node in (first, *others, last):
            node.ask("ACL", "DELUSER", "somebody")


async def test_tls_to_nodes_that_speak_none_is_explained(redis_cluster: RedisCluster) -> None:
    """Also where each connection gives up before the whole check does."""
    url = redis_cluster.url.replace("redis+", "rediss+") + "?socket_connect_timeout=0.2"
    async with connect(url) as redis:
        with pytest.raises(
            RedisUnavailableError, match=r"speaks no TLS: .*write redis\+cluster://"
        ):
            await check_fitness(redis)


async def test_replicas_that_are_waited_for_are_counted_at_each_primary(redis: Any) -> None:
    """Each of them has one."""
    await check_permissions(redis, KEYS, 1)
    with pytest.raises(RedisUnavailableError, match=r"1 of 2 replicas .* of 127.0.0.1:\d+ had"):
        await check_permissions(redis, KEYS, 2)


async def test_scripts_are_loaded_where_a_failover_leads(
    redis: Any, redis_cluster: RedisCluster, tables: Tables
) -> None:
    """The new primary has never seen them. Nothing is lost, but the sign is another one."""
    store, signs = Store(redis, KEYS), ShardSigns(redis, KEYS)
    await fill(store)
    before, heads = await signs.read(), await tables.heads.read(ROOMS)
    layout = await signs.layout()
    saved = set(before.values())
    assert signs.on_other_shards(ROOMS, before, saved) == set()

    old = redis_cluster.primary_of(KEYS.head("room-0"))
    (replica,) = redis_cluster.replicas_of(old)
    replica.ask("SCRIPT", "FLUSH")
    await asyncio.to_thread(redis_cluster.fail_over, replica)

    assert await fill(store, place=20) == ["s"] * len(ROOMS)
    assert await tables.heads.lost(heads.items()) == set()
    on_shard = {room for room in ROOMS if redis_cluster.primary_of(KEYS.head(room)) is replica}
    assert signs.on_other_shards(ROOMS, await signs.read(), saved) == on_shard
    assert await signs.layout() == layout


async def test_a_transaction_follows_slots_that_have_moved(
    redis: Any, redis_cluster: RedisCluster
) -> None:
    """The node that had one says where it is."""
    await fill(Store(redis, KEYS))
    key = KEYS.head("room-0")
    source = redis_cluster.primary_of(key)
    target = next(node for node in redis_cluster.primaries() if node is not source)
    slot = redis.keyslot(key)
    signs = ShardSigns(redis, KEYS)
    layout = await signs.layout()
    await asyncio.to_thread(redis_cluster.move_slots, [slot], target)
    assert await signs.layout() != layout
    try:
        pipe = redis.pipeline(transaction=True)
        pipe.get(key)
        pipe.exists(KEYS.head("room-1"))
        pipe.hgetall(KEYS.counts("room-0", ANA.message_timetoken))
        pipe.zrange(KEYS.messages("room-0"), 0, -1, withscores=True)
        head, is_there, counts, index = await pipe.execute()
        assert head
        assert is_there == 1
        assert counts == {"reaction:👍": "1"}
        assert [message for message, _ in index] == [ANA.message_timetoken]
        assert await signs.layout() != layout
    finally:
        await asyncio.to_thread(redis_cluster.move_slots, [slot], source)


async def test_values_of_any_slots_come_in_order(redis: Any) -> None:
    """Also among other commands of a pipeline."""
    for number in range(30):
        await redis.set(f"key-{number}", number)
    keys = [f"key-{number}" for number in (7, 29, 99, 3, 15)]

    pipe = redis.pipeline(transaction=False)
    pipe.get("key-1")
    pipe.mget(keys)
    pipe.get("key-2")
    assert await pipe.execute() == ["1", ["7", "29", None, "3", "15"], "2"]
    assert await redis.mget(keys) == ["7", "29", None, "3", "15"]


async def test_a_write_waits_for_replicas(redis: Any, redis_cluster: RedisCluster) -> None:
    """A cursor must not pass what a replica lacks, if that is asked for."""
    assert await fill(Store(redis, KEYS, replicas=1)) == ["a"] * len(ROOMS)
    primary = redis_cluster.primary_of(KEYS.head("room-0"))
    (replica,) = redis_cluster.replicas_of(primary)
    replica.stop_following()
    try:
        with pytest.raises(RedisUnavailableError, match="0 of 1 replicas"):
            await fill(Store(redis, KEYS, replicas=1), ["room-0"], place=20)
        # The event is there, and another connection has written nothing.
        await asyncio.gather(*(redis.get(KEYS.head("room-0")) for _ in range(3)))
        with pytest.raises(RedisUnavailableError, match="0 of 1 replicas"):
            await fill(Store(redis, KEYS, replicas=1), ["room-0"], place=20)
        with pytest.raises(RedisUnavailableError, match="TALLY_WAIT_REPLICAS"):
            await Tables(redis, KEYS, replicas=1).pending.mark(["room-0"], GapCause.OVERFLOW)
    finally:
        replica.follow_again()
