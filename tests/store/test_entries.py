"""Reading entries back: all of them, whatever their number."""

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from tests.histories import ANA, BEN, CHANNEL, MESSAGE, added, at, removed
from tests.store.test_contract import KEYS
from worker.domain.action import Event, Identity, Origin
from worker.domain.entry import ABSENT, Entry
from worker.domain.position import from_seconds, milliseconds
from worker.domain.seen_set import EntryKey
from worker.store.entries import Entries, entry_keys, identity
from worker.store.keys import action_field
from worker.store.store import Store

FIRST = 17_600_000_000_000_000


async def store(redis: Redis, *lives: EntryKey, score: int = 0) -> None:
    """Put entries where the script puts them."""
    pipe = cast("Any", redis).pipeline(transaction=False)
    for message, field, action_timetoken in lives:
        pipe.hset(KEYS.actions(CHANNEL, message), field, action_timetoken)
        pipe.zadd(KEYS.messages(CHANNEL), {message: score})
    await pipe.execute()


async def batches(redis: Redis, since: str | None = None) -> AsyncIterator[list[EntryKey]]:
    """Yield what a scan tells, batch by batch."""
    async for messages in Entries(redis, KEYS).scan(CHANNEL, since):
        yield [live for message in messages for live in entry_keys(message)]


async def scanned(redis: Redis, since: str | None = None) -> list[EntryKey]:
    """Return what a scan tells, in one list."""
    return [live async for batch in batches(redis, since) for live in batch]


@pytest.mark.parametrize(("messages", "users"), [(1, 1), (1, 5000), (2500, 1), (120, 20)])
async def test_a_scan_tells_every_live_entry(real_redis: Redis, messages: int, users: int) -> None:
    """Hashes of thousands, thousands of hashes; some thousand at once."""
    lives = {
        (str(FIRST + message), action_field("reaction", "👍", f"user{user}"), str(FIRST + user))
        for message in range(messages)
        for user in range(users)
    }
    await store(real_redis, *lives)

    parts = [batch async for batch in batches(real_redis)]

    told = [live for batch in parts for live in batch]
    assert set(told) == lives
    assert len(told) < 1.1 * len(lives)
    assert max(map(len, parts)) < 3000


async def test_an_empty_channel_has_no_entries(redis: Redis) -> None:
    """Nor has one whose counts are all back at zero; nor does a neighbour's count."""
    await Store(redis, KEYS).apply(CHANNEL, [added(1), removed(1)], Origin.LIVE)
    await Store(redis, KEYS).apply(
        "hall", [added(1, Identity("hall", MESSAGE, "a", "b", "c"))], Origin.LIVE
    )

    assert await scanned(redis) == []
    assert [batch async for batch in Entries(redis, KEYS).scan("yard")] == []


async def test_an_entry_tells_whose_it_is(redis: Redis) -> None:
    """Whatever stands in type, value and uuid."""
    odd = Identity(CHANNEL, MESSAGE, "re:act%ion", "a:b%3A{c}\n", "u:1%")
    await Store(redis, KEYS).apply(CHANNEL, [added(3, odd)], Origin.LIVE)

    [live] = await scanned(redis)

    assert identity(CHANNEL, live) == odd
    assert live[2] == at(3)


async def test_what_lives_all_the_while_is_told(real_redis: Redis) -> None:
    """Though fields and messages come and go under the scan, and hashes grow and shrink by thousands."""
    large, coming = KEYS.actions(CHANNEL, str(FIRST)), [f"reaction:👍:new{n}" for n in range(3000)]
    lives = {
        (str(FIRST + n % 150), action_field("reaction", "👍", f"user{n}"), "1") for n in range(1500)
    }
    lives |= {(str(FIRST), action_field("reaction", "🎉", f"user{n}"), "1") for n in range(3000)}
    await store(real_redis, *lives)
    told: set[EntryKey] = set()
    looks = 0

    async for batch in batches(real_redis):
        told.update(batch)
        looks += 1
        pipe = cast("Any", real_redis).pipeline(transaction=False)
        if looks % 2:
            pipe.hset(large, mapping=dict.fromkeys(coming, "2"))
            pipe.zadd(KEYS.messages(CHANNEL), {str(FIRST + n): 0 for n in range(150, 300)})
        else:
            pipe.hdel(large, *coming)
            pipe.zrem(KEYS.messages(CHANNEL), *(str(FIRST + n) for n in range(150, 300)))
        await pipe.execute()

    assert lives <= told
    assert looks > 2


async def test_since_leaves_out_what_nobody_has_touched(redis: Redis) -> None:
    """By the newest event of a message; one of that very millisecond is in."""
    since = from_seconds(1_760_000_000)
    for message, milliseconds_after in (("1", -1), ("2", 0), ("3", 1)):
        await store(redis, (message, "a:b:c", "1"), score=milliseconds(since) + milliseconds_after)

    assert {message for message, _, _ in await scanned(redis, since)} == {"2", "3"}
    assert {message for message, _, _ in await scanned(redis)} == {"1", "2", "3"}


async def test_entries_are_read_in_the_order_asked_for(redis: Redis) -> None:
    """Live, removed, both, neither."""
    both, absent = (
        Identity(CHANNEL, "5", "reaction", "a:b", "u:1"),
        Identity(CHANNEL, "6", "x", "y", "z"),
    )
    batch: list[Event] = [
        added(1),
        added(1, BEN),
        removed(1, BEN),
        removed(1, both),
        added(2, both),
    ]
    await Store(redis, KEYS).apply(CHANNEL, batch, Origin.LIVE)

    entries = Entries(redis, KEYS)

    assert await entries.read(CHANNEL, [absent, BEN, ANA, both, ANA]) == [
        ABSENT,
        Entry(None, at(1)),
        Entry(at(1), None),
        Entry(at(2), at(1)),
        Entry(at(1), None),
    ]
    assert await entries.read(CHANNEL, []) == []


async def test_the_oldest_message_is_found_among_many(redis: Redis) -> None:
    """By its timetoken, not by when something happened to it; what a client made up tells no age."""
    entries = Entries(redis, KEYS)
    assert await entries.oldest(CHANNEL) is None
    await store(redis, ("1234567890", "a:b:c", "1"), ("9" * 18, "a:b:c", "1"))
    assert await entries.oldest(CHANNEL) is None

    await store(redis, *((str(FIRST + n), "a:b:c", "1") for n in range(500)), score=5)
    await store(redis, (str(FIRST - 1), "a:b:c", "1"), score=10**12)

    assert await entries.oldest(CHANNEL) == str(FIRST - 1)
