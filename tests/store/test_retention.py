"""Messages older than the retention are deleted and journaled, and never counted again."""

import time
from typing import Any, cast

from redis.asyncio import Redis

from reaction_tally.keys import Keys
from tests.store.examples import apply
from tests.store.journal_follower import JournalFollower
from tests.unclaimed import UnclaimedReader
from worker.domain.action import Added, Identity
from worker.domain.position import from_seconds
from worker.store.apply_script import Ttls
from worker.store.batch import MAX_BATCH, batched
from worker.store.store import Store

KEYS = Keys()
DAY = 86400
OLD = from_seconds(time.time() - 2 * DAY)
YOUNG = from_seconds(time.time() - DAY / 2)
ODD = "1234567890"


def added(message: str, uuid: str = "ana") -> Added:
    """Return an addition of now."""
    now = from_seconds(time.time())
    return Added(Identity("room", message, "reaction", "👍", uuid), now, now)


async def test_an_old_message_is_swept_and_journaled(redis: Redis) -> None:
    """Its keys are deleted. Young messages, and those with odd timetokens, stay."""
    keeping, forgetting = Store(redis, KEYS), Store(redis, KEYS, Ttls(retention_seconds=DAY))
    await apply(keeping, [added(OLD), added(YOUNG), added(ODD)])
    head = await redis.get(KEYS.head("room"))

    assert await keeping.sweep("room") == 0
    assert await forgetting.sweep("room") == 1
    assert await forgetting.sweep("room") == 0

    reader = UnclaimedReader(redis)
    assert await reader.get_many("room", [OLD, YOUNG, ODD]) == {
        OLD: {},
        YOUNG: {"reaction": {"👍": 1}},
        ODD: {"reaction": {"👍": 1}},
    }
    assert not await redis.exists(*KEYS.message("room", OLD))
    assert await redis.zscore(KEYS.messages("room"), OLD) is None
    entry_id, entry = (await cast("Any", redis).xrange(KEYS.journal("room")))[-1]
    assert entry == {"after": head, "origin": "sweep", "0": f"expired applied {OLD} 0 {OLD} "}
    assert await redis.get(KEYS.head("room")) == entry_id


async def test_a_cleared_channel_has_no_message(real_redis: Redis) -> None:
    """Each is deleted, whatever its age, and journaled: a reader that follows sees it."""
    store = Store(real_redis, KEYS)
    messages = [OLD, YOUNG, ODD, *(str(int(YOUNG) + number) for number in range(1, MAX_BATCH))]
    for batch in batched(messages, MAX_BATCH):
        await apply(store, list(map(added, batch)))
    follower = JournalFollower(real_redis, "room")
    await follower.catch_up()
    assert len(follower.tallies) == len(messages)

    assert await store.clear("room") == len(messages)
    assert await store.clear("room") == 0

    await follower.catch_up()
    assert (follower.tallies, follower.snapshots) == ({}, 1)
    left = set(await cast("Any", real_redis).keys())
    assert left == {KEYS.journal("room"), KEYS.head("room")}
    assert await cast("Any", real_redis).ttl(KEYS.journal("room")) > 0


async def test_events_for_an_old_message_are_ignored(redis: Redis) -> None:
    """Its history is gone, so a count would be wrong."""
    store = Store(redis, KEYS, Ttls(retention_seconds=DAY))

    applied = await apply(store, [added(OLD), added(YOUNG), added(ODD)])

    assert applied.letters == "xaa"
    assert not await redis.exists(*KEYS.message("room", OLD))


async def test_a_message_expires_when_it_is_older_than_the_retention(redis: Redis) -> None:
    """A message exactly as old as the retention stays. The sweep agrees with the apply."""
    store = Store(redis, KEYS, Ttls(retention_seconds=1))
    while True:
        now = await seconds_of(redis)
        just, older = f"{now - 1}0000000", f"{now - 2}9999999"
        await apply(Store(redis, KEYS), [added(just), added(older)])
        applied = await apply(store, [added(just, "ben"), added(older, "ben")])
        swept = await store.sweep("room")
        if await seconds_of(redis) == now:  # else a second has passed meanwhile
            break
        await redis.flushall()

    assert applied.letters == "ax"
    assert swept == 1
    assert await UnclaimedReader(redis).get_many("room", [just, older]) == {
        just: {"reaction": {"👍": 2}},
        older: {},
    }


async def seconds_of(redis: Redis) -> int:
    """Return Redis's time in seconds."""
    seconds, _ = await cast("Any", redis).time()
    return int(seconds)


async def test_many_messages_are_swept(real_redis: Redis) -> None:
    """A sweep deletes them in batches."""
    store = Store(real_redis, KEYS)
    messages = [from_seconds(time.time() - 2 * DAY + number) for number in range(750)]
    for start in range(0, 750, 250):
        await apply(store, [added(message) for message in messages[start : start + 250]])

    assert await Store(real_redis, KEYS, Ttls(retention_seconds=DAY)).sweep("room") == 750

    assert await real_redis.zcard(KEYS.messages("room")) == 0
    assert sorted(await real_redis.keys()) == [KEYS.head("room"), KEYS.journal("room")]
