"""Proofs: when each channel was last compared, and nothing was in doubt."""

from typing import Any, cast

from redis.asyncio import Redis

from reaction_tally.keys import Keys
from tests.bench.round_trips import round_trips
from tests.histories import CHANNEL, added
from tests.store.examples import apply
from worker.store.proofs import Ages, Proof
from worker.store.store import Store
from worker.store.tables import Tables

KEYS = Keys()


async def read(tables: Tables, *channels: str) -> dict[str, Proof]:
    """Return what is known of these channels."""
    return {channel: await tables.proofs.read(channel) for channel in channels}


async def test_a_look_at_everything_proves_the_recent_past(tables: Tables) -> None:
    """A look at the recent past does not prove everything."""
    await tables.proofs.note("room", 1000)
    await tables.proofs.note("room", 2000, since=1000)

    assert await read(tables, "room", "yard") == {"room": Proof(2000, 1000), "yard": Proof()}


async def test_a_look_that_leaves_a_stretch_out_proves_nothing(tables: Tables) -> None:
    """What lies between the last proof and its beginning was not compared."""
    await tables.proofs.note("room", 1000)
    await tables.proofs.note("room", 9000, since=1001)
    await tables.proofs.note("hall", 9000, since=8000)

    assert await read(tables, "room", "hall") == {"room": Proof(1000, 1000), "hall": Proof()}


async def test_a_lost_proof_of_the_recent_past_is_made_again(tables: Tables, redis: Redis) -> None:
    """By the next look, because everything before was proven, too."""
    await tables.proofs.note("room", 1000)
    await cast("Any", redis).delete(KEYS.proven)
    await tables.proofs.note("room", 2000, since=900)

    assert await read(tables, "room") == {"room": Proof(2000, 1000)}


async def test_an_older_look_replaces_no_newer_one(tables: Tables) -> None:
    """Two workers look at a channel, and one of them is slow. After a prune it is set back."""
    await tables.proofs.note("room", 2000)
    await tables.proofs.note("room", 1000)
    assert await read(tables, "room") == {"room": Proof(2000, 2000)}

    await tables.proofs.set_back("room", 500)
    await tables.proofs.set_back("room", 900)
    assert await read(tables, "room") == {"room": Proof(2000, 500)}


async def test_a_channel_is_forgotten(tables: Tables) -> None:
    """The others stay."""
    for channel in ("room", "hall"):
        await tables.proofs.note(channel, 1000)
    await tables.proofs.forget("room")

    assert await read(tables, "room", "hall") == {"room": Proof(), "hall": Proof(1000, 1000)}


async def test_the_journal_says_when_a_channel_changed(redis: Redis, tables: Tables) -> None:
    """By the clock of Redis. Other text in its place says nothing."""
    before = await tables.server.now()
    await apply(Store(redis, KEYS), [added(1)])
    await cast("Any", redis).set(KEYS.head("hall"), "not ours")

    proofs = await read(tables, CHANNEL, "hall")

    assert before <= proofs[CHANNEL].changed <= await tables.server.now()
    assert proofs["hall"] == Proof()


async def test_a_damaged_head_harms_no_other_channel(real_redis: Redis) -> None:
    """Another program has written a list there."""
    tables = Tables(real_redis, KEYS)
    await cast("Any", real_redis).rpush(KEYS.head("hall"), "not ours")
    await tables.proofs.note("room", 1000)

    assert await read(tables, "hall", "room") == {"hall": Proof(), "room": Proof(1000, 1000)}


async def test_ages_are_of_all_channels(tables: Tables) -> None:
    """The longest, and of 99 in a hundred, in seconds."""
    nothing = Ages(0, 0, 0)
    assert await tables.proofs.unproven(1000, is_whole=True) == nothing
    for number in range(200):
        await tables.proofs.note(f"room-{number}", 1000 * number)
    await tables.proofs.note("room-0", 5000, since=0)

    recent = await tables.proofs.unproven(1_000_000, is_whole=False)
    whole = await tables.proofs.unproven(1_000_000, is_whole=True)

    assert recent == Ages(longest=999, ninety_nine=997, channels=200)
    assert whole == Ages(longest=1000, ninety_nine=998, channels=200)


async def test_proofs_of_a_thousand_channels_are_one_round_trip(real_redis: Redis) -> None:
    """A round, and a look for channels that changed last, read those of all channels."""
    proofs = Tables(real_redis, KEYS).proofs
    channels = [f"room-{number}" for number in range(2500)]
    await proofs.note("room-1", 1000)

    with round_trips(real_redis) as sent:
        known = [proof async for _, proof in proofs.scan(channels)]

    assert (len(known), known.count(Proof())) == (2500, 2499)
    assert len(sent) == 3


async def test_many_channels_are_read(tables: Tables) -> None:
    """There are more of them than fit into one round trip. The clock of Redis is a minute late."""
    channels = [f"room-{number}" for number in range(2500)]
    await tables.proofs.note("room-2400", 1000)

    proofs = {name: proof async for name, proof in tables.proofs.scan(channels, 60_000)}

    assert proofs.keys() == {*channels}
    assert proofs["room-2400"] == Proof(1000, 1000, 60_000)


async def test_ages_may_be_of_some_channels(real_redis: Redis) -> None:
    """A shard tells of its own channels alone, and ranks them as all are ranked."""
    proofs = Tables(real_redis, KEYS).proofs
    names = [f"room-{number}" for number in range(150)]
    for number, name in enumerate(names):
        await proofs.note(name, 1_000_000 + 1000 * number)
    now = 2_000_000

    for is_whole in (False, True):
        every = await proofs.unproven(now, is_whole=is_whole)
        assert await proofs.unproven_of(names, now, is_whole=is_whole) == every
        some = await proofs.unproven_of([*names[50:], "never"], now, is_whole=is_whole)
        assert (some.longest, some.channels) == (950, 100)
        assert (await proofs.unproven_of(["never"], now, is_whole=is_whole)).channels == 0
