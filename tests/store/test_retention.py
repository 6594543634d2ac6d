"""Messages older than the retention are forgotten, told so in the journal, and never counted again."""

import time
from typing import Any, cast

from redis.asyncio import Redis

from worker.domain.action import Added, Identity, Origin
from worker.domain.entry import Outcome
from worker.domain.position import Cursor, from_seconds
from worker.store.keys import Keys
from worker.store.marks import Marks
from worker.store.reader import TallyReader
from worker.store.store import Store, Ttls

KEYS = Keys()
DAY = 86400
OLD, YOUNG, ODD = (
    from_seconds(time.time() - 2 * DAY),
    from_seconds(time.time() - DAY / 2),
    "1234567890",
)


def added(message: str, uuid: str = "ana") -> Added:
    """Return an addition that happens now."""
    now = from_seconds(time.time())
    return Added(Identity("room", message, "reaction", "👍", uuid), now, now)


async def test_an_old_message_is_swept_and_journaled(redis: Redis) -> None:
    """Its keys go; a follower of the journal is told; young messages and odd timetokens stay."""
    keeping, forgetting = Store(redis, KEYS), Store(redis, KEYS, Ttls(retention_seconds=DAY))
    await keeping.apply("room", [added(OLD), added(YOUNG), added(ODD)], Origin.LIVE)
    head = await redis.get(KEYS.head("room"))

    assert await keeping.sweep("room") == 0
    assert await forgetting.sweep("room") == 1
    assert await forgetting.sweep("room") == 0

    reader = TallyReader(redis)
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


async def test_events_for_an_old_message_are_ignored(redis: Redis) -> None:
    """Half of its history is gone, so any count of it would be wrong."""
    store = Store(redis, KEYS, Ttls(retention_seconds=DAY))

    applied = await store.apply("room", [added(OLD), added(YOUNG), added(ODD)], Origin.LIVE)

    assert applied.outcomes == (Outcome.EXPIRED, Outcome.APPLIED, Outcome.APPLIED)
    assert not await redis.exists(*KEYS.message("room", OLD))


async def test_a_message_expires_when_it_is_older_than_the_retention(redis: Redis) -> None:
    """Not when it is just as old; however short the retention is. The sweep agrees."""
    store = Store(redis, KEYS, Ttls(retention_seconds=1))
    while True:
        now = await seconds_of(redis)
        just, older = f"{now - 1}0000000", f"{now - 2}9999999"
        await Store(redis, KEYS).apply("room", [added(just), added(older)], Origin.LIVE)
        applied = await store.apply("room", [added(just, "ben"), added(older, "ben")], Origin.LIVE)
        swept = await store.sweep("room")
        if await seconds_of(redis) == now:  # else the clock has gone on meanwhile
            break
        await redis.flushall()

    assert applied.outcomes == (Outcome.APPLIED, Outcome.EXPIRED)
    assert swept == 1
    assert await TallyReader(redis).get_many("room", [just, older]) == {
        just: {"reaction": {"👍": 2}},
        older: {},
    }


async def seconds_of(redis: Redis) -> int:
    """Return Redis's time."""
    seconds, _ = await cast("Any", redis).time()
    return int(seconds)


async def test_many_messages_are_swept(real_redis: Redis) -> None:
    """In batches, all of them."""
    store = Store(real_redis, KEYS)
    messages = [from_seconds(time.time() - 2 * DAY + number) for number in range(750)]
    for start in range(0, 750, 250):
        await store.apply(
            "room", [added(message) for message in messages[start : start + 250]], Origin.LIVE
        )

    assert await Store(real_redis, KEYS, Ttls(retention_seconds=DAY)).sweep("room") == 750

    assert await real_redis.zcard(KEYS.messages("room")) == 0
    assert sorted(await real_redis.keys()) == [KEYS.head("room"), KEYS.journal("room")]


async def test_an_abandoned_cursor_lasts_a_week(real_redis: Redis) -> None:
    """Nobody saves the cursor of a subscription whose list has changed."""
    await Marks(real_redis, KEYS).save_cursor("s", Cursor("17600000001728660", 43))

    saved_at = await cast("Any", real_redis).hget(KEYS.cursor("s"), "saved_at")
    ends_at = await cast("Any", real_redis).pexpiretime(KEYS.cursor("s"))
    assert ends_at // 1000 - int(saved_at) == 7 * 86_400
