"""The hourly pass: old messages are deleted, and tombstones of messages that stay busy."""

import asyncio
import time
from collections import deque
from typing import Any, Final, cast

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from tests.bench.bench import KEYS, Bench, Clock
from tests.bench.round_trips import round_trips
from tests.bench.virtual import on_virtual_time, worker_parts
from tests.simulation.world import HOUR, World
from tests.store.examples import apply as apply_batch
from worker.applying.expiry import LEAST_TOMBSTONES as LEAST
from worker.applying.expiry import Expiry
from worker.domain.action import Added, Event, Identity, Origin, Removed
from worker.domain.position import from_seconds
from worker.service.parts import Parts, build_expiry
from worker.store.apply_script import Ttls
from worker.store.batch import MAX_BATCH, batched
from worker.store.redis_retry import RedisRetry
from worker.store.store import Store
from worker.store.tables import Tables
from worker.store.tombstones import Tombstones

DAY: Final = 86400
LIFE_SECONDS: Final = 3600
MESSAGE: Final = "17600000001728660"
ODD: Final = "1234567890"
"""It has no age, so no sweep deletes it."""
REMOVED: Final = KEYS.removed("room", MESSAGE)
BURST: Final = LEAST // 2
"""Removals of one burst, in a test where they never end."""
BURST_SECONDS: Final = 600


def expiry_of(redis: Redis, clock: Clock, ttls: Ttls | None = None) -> Expiry:
    """Return the job."""
    ttls = ttls or Ttls(tombstone_seconds=LIFE_SECONDS)
    tables = Tables(redis, KEYS, RedisRetry(clock))
    store, tombstones = Store(redis, KEYS, ttls), Tombstones(redis, KEYS)
    return Expiry(store, tables, tombstones, ttls, clock)


def identity(number: int) -> Identity:
    """Return the identity of a user's reaction."""
    return Identity("room", MESSAGE, "reaction", "👍", f"user{number}")


def of_message(message: str) -> Identity:
    """Return the identity of a user's reaction to another message."""
    return Identity("room", message, "reaction", "👍", "ana")


def removals(numbers: range, at: str) -> list[Event]:
    """Return the removals of these users' reactions."""
    return [Removed(identity(number), at, at) for number in numbers]


async def apply(store: Store, events: list[Event]) -> str:
    """Apply events; return their outcomes."""
    letters = ""
    for batch in batched(events, MAX_BATCH):
        letters += (await apply_batch(store, batch, channel="room")).letters
    return letters


async def test_the_sweep_visits_all_channels(bench: Bench) -> None:
    """Old messages are deleted, young ones stay."""
    old, young = from_seconds(time.time() - 2 * DAY), from_seconds(time.time())
    for channel in ("room", "hall"):
        events = [
            Added(Identity(channel, at, "reaction", "👍", "ana"), young, young)
            for at in (old, young)
        ]
        await bench.applier.apply(events, Origin.LIVE, bench.clock())
    await bench.tables.channels.add(["room", "hall"])

    expiry = expiry_of(bench.redis, bench.clock, Ttls(retention_seconds=DAY))
    assert await expiry.run_once() == 2

    assert await bench.counts() == {
        channel: {young: {"reaction": {"👍": 1}}} for channel in ("room", "hall")
    }


async def test_tombstones_older_than_a_life_are_deleted(redis: Redis) -> None:
    """One that was renewed since stays, and so does a younger one."""
    clock, now = Clock(), int(from_seconds(time.time()))
    expiry, store = expiry_of(redis, clock), Store(redis, KEYS)
    old, renewed, young = range(LEAST), range(5), range(LEAST, LEAST + 20)
    await Tables(redis, KEYS).channels.add(["room"])
    await apply(store, removals(old, str(now)))

    await expiry.run_once()
    await apply(store, removals(renewed, str(now + 1)) + removals(young, str(now)))
    clock.now += LIFE_SECONDS - 1
    await expiry.run_once()
    assert await redis.hlen(REMOVED) == LEAST + 20
    clock.now += 1
    await expiry.run_once()

    left = {identity(number).uuid for number in (*renewed, *young)}
    fields: list[str] = await cast("Any", redis).hkeys(REMOVED)
    assert {field.rpartition(":")[2] for field in fields} == left
    late: list[Event] = [Added(identity(number), str(now), str(now)) for number in young]
    assert await apply(store, late) == "l" * 20


async def test_channels_without_old_data_share_round_trips(bench: Bench) -> None:
    """There are a thousand of them. Each has a young message with one tombstone."""
    now = from_seconds(time.time())
    rooms = [Identity(f"room{number}", now, "reaction", "👍", "ana") for number in range(1000)]
    for batch in batched(rooms, MAX_BATCH):
        events = [Removed(room, now, now) for room in batch]
        await bench.applier.apply(events, Origin.LIVE, bench.clock())
    await bench.tables.channels.add([room.channel for room in rooms])
    expiry = expiry_of(bench.redis, bench.clock, Ttls(retention_seconds=DAY))

    with round_trips(bench.redis) as sent:
        await expiry.run_once()

    assert len(sent) < 40


async def test_a_busy_message_is_found_among_many(redis: Redis) -> None:
    """The others have changed before it, and have one tombstone each."""
    clock, now = Clock(), int(from_seconds(time.time()))
    expiry, store = expiry_of(redis, clock), Store(redis, KEYS)
    await Tables(redis, KEYS).channels.add(["room"])
    others = [of_message(str(number)) for number in range(1, 61)]
    await apply(store, [Removed(other, str(now), str(now)) for other in others])
    await apply(store, removals(range(LEAST), str(now + 10**7)))

    await expiry.run_once()
    clock.now += LIFE_SECONDS
    await expiry.run_once()

    assert await redis.hlen(REMOVED) == 0


async def test_a_removal_of_now_is_not_deleted(redis: Redis) -> None:
    """It comes after the scan, and before the script that deletes."""
    now = int(from_seconds(time.time()))
    tombstones, store = Tombstones(redis, KEYS), Store(redis, KEYS)
    await apply(store, removals(range(2), str(now)))
    scanned = await cast("Any", redis).hgetall(REMOVED)
    await apply(store, removals(range(1), str(now + 1)))

    await tombstones.forget("room", MESSAGE, scanned)

    assert await redis.hgetall(REMOVED) == {"reaction:👍:user0": str(now + 1)}


async def test_a_quiet_message_and_a_small_one_are_left_alone(redis: Redis) -> None:
    """Redis deletes the tombstones of a quiet message, and a small one needs little memory."""
    clock, now = Clock(), int(from_seconds(time.time()))
    expiry, store = expiry_of(redis, clock), Store(redis, KEYS)
    quiet = from_seconds(time.time() - 3 * LIFE_SECONDS)
    await Tables(redis, KEYS).channels.add(["room"])
    await apply(store, removals(range(LEAST - 1), str(now)))
    other = [Identity("room", quiet, "reaction", "👍", str(number)) for number in range(LEAST)]
    await apply(store, [Removed(each, quiet, quiet) for each in other])

    for _ in range(3):
        await expiry.run_once()
        clock.now += LIFE_SECONDS

    assert await redis.hlen(REMOVED) == LEAST - 1
    assert await redis.hlen(KEYS.removed("room", quiet)) == LEAST


@pytest.mark.parametrize("key", [KEYS.messages("hall"), KEYS.removed("hall", ODD)])
async def test_a_channel_that_fails_delays_no_other(redis: Redis, key: str) -> None:
    """A key of it has the wrong type; the log names the channel."""
    clock, now = Clock(), from_seconds(time.time())
    expiry, store = expiry_of(redis, clock, Ttls(retention_seconds=DAY)), Store(redis, KEYS)
    await Tables(redis, KEYS).channels.add(["hall", "room"])
    await redis.zadd(KEYS.messages("hall"), {ODD: time.time() * 1000})
    await redis.delete(key)
    await redis.set(key, "odd", ex=60)
    young = [Identity("room", now, "reaction", "👍", str(number)) for number in range(LEAST)]
    await apply(store, [Removed(each, now, now) for each in young])

    with capture_logs() as log:
        await expiry.run_once()
        clock.now += LIFE_SECONDS
        await expiry.run_once()

    assert await redis.hlen(KEYS.removed("room", now)) == 0
    failed = [entry["channel"] for entry in log if entry["event"] == "expiry_failed"]
    assert set(failed) == {"hall"}
    await redis.delete(KEYS.messages("hall"))


@on_virtual_time
async def test_removals_that_never_end_stay_bounded(world: World) -> None:
    """Each of them bars a late addition for a whole life; none stays much longer than two."""
    parts = worker_parts(world)
    await parts.tables.channels.add(["room"])
    task = asyncio.create_task(build_expiry(parts).run())
    young: deque[tuple[int, str]] = deque(maxlen=LIFE_SECONDS // BURST_SECONDS - 1)
    sizes: list[int] = []

    for burst in range(8 * round(HOUR) // BURST_SECONDS):
        now = str(world.state.time.now())
        numbers = range(burst * BURST, (burst + 1) * BURST)
        await apply(parts.store, removals(numbers, now))
        young.append((numbers[0], now))
        await asyncio.sleep(BURST_SECONDS)
        sizes.append(world.keyspace.hlen(REMOVED))
        await expect_late(parts, young)
    task.cancel()

    assert max(sizes) <= (2 * LIFE_SECONDS // BURST_SECONDS + 1) * BURST
    assert len(sizes) * BURST > 3 * max(sizes)


async def expect_late(parts: Parts, removed: deque[tuple[int, str]]) -> None:
    """Expect the addition of each of these users to be late."""
    late: list[Event] = [Added(identity(number), at, at) for number, at in removed]
    assert await apply(parts.store, late) == "l" * len(removed)


@on_virtual_time
async def test_a_pass_waits_while_redis_is_away(world: World) -> None:
    """The worker goes on; the pass is made when Redis answers."""
    parts = worker_parts(world)
    await parts.tables.channels.add(["room"])
    now = str(world.state.time.now())
    await apply(parts.store, removals(range(LEAST), now))
    expiry = build_expiry(parts)
    await expiry.run_once()
    world.cut_redis(60)
    await asyncio.sleep(1)
    # A removal keeps the hash, as it would in a busy message.
    tasks = [asyncio.create_task(expiry.run()), asyncio.create_task(keep_busy(world, parts, now))]

    await asyncio.sleep(2.5 * HOUR)

    assert world.keyspace.hlen(REMOVED) == 1
    for task in tasks:
        task.cancel()


async def keep_busy(world: World, parts: Parts, now: str) -> None:
    """Remove a reaction of the same user again and again."""
    while True:
        await asyncio.sleep(BURST_SECONDS)
        now = str(world.state.time.now())
        await apply(parts.store, removals(range(LEAST, LEAST + 1), now))
