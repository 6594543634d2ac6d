"""Entries are read from Redis: all of them, however many there are."""

from collections.abc import AsyncIterator
from random import Random
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from reaction_tally.keys import Keys, action_field
from tests.histories import ANA, BEN, CHANNEL, MESSAGE, added, at, removed
from tests.store.examples import apply
from worker.domain.action import Event, Identity
from worker.domain.entry import ABSENT, Entry
from worker.domain.position import from_seconds, milliseconds
from worker.domain.seen_set import EntryKey
from worker.store.entries import Entries, entry_keys, identity
from worker.store.store import Store

KEYS = Keys()
FIRST = 17_600_000_000_000_000


async def write(redis: Redis, *entries: EntryKey, score: int = 0) -> None:
    """Write live entries as the script does."""
    pipe = cast("Any", redis).pipeline(transaction=False)
    for message, field, action_timetoken in entries:
        pipe.hset(KEYS.actions(CHANNEL, message), field, action_timetoken)
        pipe.zadd(KEYS.messages(CHANNEL), {message: score})
    await pipe.execute()


async def batches(redis: Redis, since: str | None = None) -> AsyncIterator[list[EntryKey]]:
    """Yield what a scan yields, batch by batch."""
    async for messages in Entries(redis, KEYS).scan(CHANNEL, since):
        yield [entry for message in messages for entry in entry_keys(message)]


async def scanned(redis: Redis, since: str | None = None) -> list[EntryKey]:
    """Return what a scan yields, in one list."""
    return [entry async for batch in batches(redis, since) for entry in batch]


@pytest.mark.parametrize(("messages", "users"), [(1, 1), (1, 5000), (2500, 1), (120, 20)])
async def test_a_scan_yields_every_live_entry(real_redis: Redis, messages: int, users: int) -> None:
    """Some thousand come at once, from large hashes and from small ones."""
    entries = {
        (str(FIRST + message), action_field("reaction", "👍", f"user{user}"), str(FIRST + user))
        for message in range(messages)
        for user in range(users)
    }
    await write(real_redis, *entries)

    parts = [batch async for batch in batches(real_redis)]

    seen = [entry for batch in parts for entry in batch]
    assert set(seen) == entries
    assert len(seen) < 1.1 * len(entries)
    assert max(map(len, parts)) < 3000


async def test_an_empty_channel_has_no_entries(redis: Redis) -> None:
    """Removed reactions are no entries. Entries of other channels are left out."""
    store = Store(redis, KEYS)
    await apply(store, [added(1), removed(1)])
    other = Identity("hall", MESSAGE, "a", "b", "c")
    await apply(store, [added(1, other)], channel="hall")

    assert await scanned(redis) == []
    assert [batch async for batch in Entries(redis, KEYS).scan("yard")] == []


@pytest.mark.parametrize("timetoken", ["", "never", "-1", "١٧٦٠٠٠٠٠٠٠"])
async def test_a_time_that_is_no_number_belongs_to_no_entry(redis: Redis, timetoken: str) -> None:
    """A hand wrote it. Redis would refuse it as a score, after the journal is written."""
    written = (MESSAGE, action_field("reaction", "👍", "ana"), at(1))
    await write(redis, written, (MESSAGE, action_field("reaction", "👍", "ben"), timetoken))

    assert await scanned(redis) == [written]


async def test_an_entry_has_its_identity(redis: Redis) -> None:
    """Type, value and uuid may hold any character."""
    odd = Identity(CHANNEL, MESSAGE, "re:act%ion", "a:b%3A{c}\n", "u:1%")
    await apply(Store(redis, KEYS), [added(3, odd)])

    [entry] = await scanned(redis)

    assert identity(CHANNEL, entry) == odd
    assert entry[2] == at(3)


async def test_a_scan_misses_nothing_while_others_write(real_redis: Redis) -> None:
    """Thousands of fields and messages come and go meanwhile; the others are yielded."""
    large = KEYS.actions(CHANNEL, str(FIRST))
    new_fields = [f"reaction:👍:new{n}" for n in range(3000)]
    new_messages = [str(FIRST + n) for n in range(150, 300)]
    entries = {
        (str(FIRST + n % 150), action_field("reaction", "👍", f"user{n}"), "1") for n in range(1500)
    }
    entries |= {(str(FIRST), action_field("reaction", "🎉", f"user{n}"), "1") for n in range(3000)}
    await write(real_redis, *entries)
    seen: set[EntryKey] = set()
    count = 0

    async for batch in batches(real_redis):
        seen.update(batch)
        count += 1
        pipe = cast("Any", real_redis).pipeline(transaction=False)
        if count % 2:
            pipe.hset(large, mapping=dict.fromkeys(new_fields, "2"))
            pipe.zadd(KEYS.messages(CHANNEL), dict.fromkeys(new_messages, 0))
        else:
            pipe.hdel(large, *new_fields)
            pipe.zrem(KEYS.messages(CHANNEL), *new_messages)
        await pipe.execute()

    assert entries <= seen
    assert count > 2


async def test_since_leaves_older_messages_out(redis: Redis) -> None:
    """The newest event of a message counts. One of the same millisecond is in."""
    since = from_seconds(1_760_000_000)
    for message, milliseconds_after in (("1", -1), ("2", 0), ("3", 1)):
        await write(redis, (message, "a:b:c", "1"), score=milliseconds(since) + milliseconds_after)

    assert {message for message, _, _ in await scanned(redis, since)} == {"2", "3"}
    assert {message for message, _, _ in await scanned(redis)} == {"1", "2", "3"}


@pytest.mark.parametrize("in_a_millisecond", [1, 700, 5000])
async def test_changed_messages_come_once(redis: Redis, in_a_millisecond: int) -> None:
    """In the order of their newest event; many may have one of the same millisecond."""
    entries = Entries(redis, KEYS)
    scores = {str(FIRST + n): 1000 + n // in_a_millisecond for n in range(5000)}
    await cast("Any", redis).zadd(KEYS.messages(CHANNEL), {"old": 999, **scores})

    found = [message async for page in entries.messages(CHANNEL, 1000) for message in page]

    assert sorted(found) == sorted(scores)


async def test_a_message_that_changes_meanwhile_is_not_missed(real_redis: Redis) -> None:
    """Its place in the index moves while the index is read; it is new at the end."""
    index = KEYS.messages(CHANNEL)
    entries, random = Entries(real_redis, KEYS), Random(1)
    scores = {str(FIRST + n): 1000 + n // 3 for n in range(4000)}
    commands = cast("Any", real_redis)
    await commands.zadd(index, scores)
    seen: set[str] = set()
    busy = random.sample(list(scores), 2000)
    newest = 10_000

    async for page in entries.messages(CHANNEL, 1000):
        seen.update(page)
        newest += 1
        some = [busy.pop() for _ in range(min(100, len(busy)))]
        if some:
            await commands.zadd(index, dict.fromkeys(some, newest), gt=True)

    assert seen == scores.keys()


async def test_what_is_older_costs_nothing(redis: Redis) -> None:
    """A look at the last day does not walk over years."""
    await cast("Any", redis).zadd(
        KEYS.messages(CHANNEL), {str(FIRST + n): 1000 + n for n in range(9000)}
    )
    pages = [page async for page in Entries(redis, KEYS).messages(CHANNEL, 9990)]

    assert list(map(len, pages)) == [10]


async def test_entries_are_read_in_the_order_asked_for(redis: Redis) -> None:
    """An entry is live, removed, both, or absent."""
    both = Identity(CHANNEL, "5", "reaction", "a:b", "u:1")
    absent = Identity(CHANNEL, "6", "x", "y", "z")
    batch: list[Event] = [added(1), added(1, BEN), removed(1, BEN)]
    batch += [removed(1, both), added(2, both)]
    await apply(Store(redis, KEYS), batch)

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
    """Its timetoken counts, not its events. A timetoken of another length has no age."""
    entries = Entries(redis, KEYS)
    assert await entries.oldest(CHANNEL) is None
    await write(redis, ("1234567890", "a:b:c", "1"), ("9" * 18, "a:b:c", "1"))
    assert await entries.oldest(CHANNEL) is None

    await write(redis, *((str(FIRST + n), "a:b:c", "1") for n in range(500)), score=5)
    await write(redis, (str(FIRST - 1), "a:b:c", "1"), score=10**12)

    assert await entries.oldest(CHANNEL) == str(FIRST - 1)
