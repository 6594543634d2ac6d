"""What the board follows: no change is missed, and no channel stops the others."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from itertools import count
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.json import decode
from redis.asyncio import Redis

from reaction_tally import AsyncTallyReader
from reaction_tally.errors import TallyReadError
from reaction_tally.keys import Keys
from reaction_tally.values import Change, Reset
from tests.claimed import claim
from tests.client.followers import reaction
from tests.histories import CHANNEL, MESSAGE
from tests.redis_server import RedisServer
from tests.store.examples import apply
from tests.waiting import wait_until
from worker.board.activity import Activity
from worker.board.feed import Feed
from worker.board.follower import Follower
from worker.board.rooms import Rooms
from worker.board.site import AT_ONCE, BoardPages
from worker.board.sources import Sources
from worker.store.connection import reading_client
from worker.store.journal import Journal
from worker.store.store import Store
from worker.store.tables import Tables
from worker.web.problems import ProblemError
from worker.web.streams import Streams

KEYS = Keys()
OTHER = "other"
NOW = 1_796_009_672.0


@pytest.fixture
async def store(real_redis: Redis) -> AsyncIterator[Store]:
    """Return what writes, in a namespace with two channels."""
    await claim(real_redis)
    redis = cast("Any", real_redis)
    await redis.sadd(KEYS.channels, CHANNEL, OTHER)
    yield Store(real_redis, KEYS)
    await redis.flushall()


@pytest.fixture
async def feed(real_redis: Redis, store: Store) -> AsyncIterator[Feed]:
    """A board without a worker around it. Nobody looks at it yet."""
    assert store

    async def status() -> dict[str, Any]:
        return {}

    async def counters() -> None:
        return None

    async with reading_client(real_redis, 8) as redis:
        sources = Sources(
            reader=AsyncTallyReader(redis),
            tables=Tables(redis, KEYS),
            journal=Journal(redis, KEYS),
            status=status,
            counters=counters,
        )
        feed = Feed(sources)
        running = asyncio.create_task(feed.run())
        yield feed
        running.cancel()
        await asyncio.wait([running])


def count_of(feed: Feed, value: str, channel: str = CHANNEL) -> int:
    """Return the count that the board holds."""
    message = feed.activity.message(channel, MESSAGE)
    return message.counts.get(("reaction", value), 0)


async def shows(feed: Feed, value: str, count: int, channel: str = CHANNEL) -> None:
    """Wait until the board has a count."""

    def is_shown() -> bool:
        feed.follower.note_look()
        return count_of(feed, value, channel) == count

    await wait_until(is_shown, 20)


async def follows(feed: Feed, store: Store) -> None:
    """Make changes until the board has heard of some: it does not only read counts."""
    numbers = count(100)
    before = feed.activity.changes.last_minute(time.time())

    async def has_heard() -> bool:
        feed.follower.note_look()
        await apply(store, [reaction(next(numbers))])
        return feed.activity.changes.last_minute(time.time()) > before + 20

    await wait_until(has_heard, 20)


GARBAGE: list[dict[bytes, bytes]] = [
    {b"after": b"x"},
    {b"after": b"\xff\xfe", b"changes": b"\x00"},
]


@pytest.mark.parametrize("entry", GARBAGE)
async def test_an_entry_of_another_program_concerns_its_channel_alone(
    feed: Feed, store: Store, valkey: RedisServer, entry: dict[bytes, bytes]
) -> None:
    """Also if it is no UTF-8."""
    await apply(store, [reaction(1)], channel=OTHER)
    await shows(feed, "👍", 1, OTHER)
    async with Redis.from_url(valkey.url) as raw:
        added = await cast("Any", raw).xadd(KEYS.journal(OTHER), entry)
        await cast("Any", raw).set(KEYS.head(OTHER), added)
        await cast("Any", raw).publish(KEYS.hints, b"\xff " + added)
        await cast("Any", raw).publish(KEYS.hints, f"{OTHER} ".encode() + added)
    await follows(feed, store)


async def test_a_damaged_channel_does_not_keep_the_board_from_following(
    feed: Feed, store: Store, valkey: RedisServer
) -> None:
    """Its list of messages is of another type; and a name is no UTF-8."""
    await apply(store, [reaction(1)], channel=OTHER)
    async with Redis.from_url(valkey.url) as raw:
        await cast("Any", raw).set(KEYS.messages(OTHER), b"\xff")
        await cast("Any", raw).sadd(KEYS.channels, b"\xff\xfe")
    await follows(feed, store)


async def test_a_change_while_nothing_was_followed_is_seen(
    feed: Feed, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts that were read before are read again."""
    changes = AsyncTallyReader.changes
    tries = 0

    async def failing(*args: Any, **options: Any) -> AsyncIterator[Change | Reset]:
        nonlocal tries
        tries += 1
        if tries == 1:
            await wait_until(lambda: count_of(feed, "👍") == 1)
            await apply(store, [reaction(2)])  # nobody follows now
            raise TallyReadError("a failure")
        async for item in changes(*args, **options):
            yield item

    monkeypatch.setattr(AsyncTallyReader, "changes", failing)
    await apply(store, [reaction(1)])
    await shows(feed, "👍", 2)


async def test_the_messages_of_a_channel_are_those_of_now(feed: Feed, store: Store) -> None:
    """Whoever asks for them looks at the board: without a stream, too."""
    await apply(store, [reaction(1)])
    for number in range(2, 5):
        first = await feed.channel(CHANNEL)
        (row,) = first["rows"].values()
        assert row["reactions"] == [["reaction", "👍", number - 1]]
        await apply(store, [reaction(number)])


async def test_whoever_looks_after_a_while_sees_nothing_old(
    feed: Feed, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither counts nor the state of an hour ago, not for a moment."""
    monkeypatch.setattr("worker.board.follower.QUIET_SECONDS", 0.3)
    monkeypatch.setattr("worker.board.feed.STATUS_SECONDS", 0.01)
    assert store

    async def is_there() -> bool:
        feed.follower.note_look()
        return "at" in decode(feed.frames.snapshot())

    await wait_until(is_there, 20)
    looked_at = time.time()
    await wait_until(lambda: "at" not in decode(feed.frames.snapshot()), 20)
    await wait_until(is_there, 20)
    assert decode(feed.frames.snapshot())["read_at"] > 1000 * looked_at


async def test_a_clock_that_is_set_forward_stops_nobody(feed: Feed) -> None:
    """The worker counts in the same loop: the board must never keep it."""
    feed.follower.note_look()
    await feed.frames.first()
    feed.follower._looked_at -= 3_600
    turns = 0
    read = asyncio.create_task(feed._facts.run(feed.follower))
    while turns < 100:  # a loop that is kept never comes to its end
        turns += 1
        await asyncio.sleep(0)
    read.cancel()
    await asyncio.wait([read])


async def test_a_question_that_waits_for_its_turn_ends_in_time(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Redis that hangs keeps nobody, and leaves no question behind."""
    begun: list[str] = []

    async def hanging(channel: str) -> None:
        begun.append(channel)
        await asyncio.Event().wait()

    monkeypatch.setattr("worker.board.site.ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(feed, "channel", hanging)
    pages = BoardPages(feed, Streams())
    call = cast("Any", SimpleNamespace(query={"channel": [CHANNEL]}))
    asked = (pages.messages(call) for _ in range(3 * AT_ONCE))
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(answer) for answer in answers} == {ProblemError}
    assert len(begun) == AT_ONCE


async def test_a_reading_that_was_cancelled_is_tried_again() -> None:
    """A request that takes too long leaves a message as it was."""

    class Hanging:
        async def get_many(self, *_: object) -> None:
            await asyncio.Event().wait()

    activity = Activity()
    message = activity.message(CHANNEL, MESSAGE)
    reader = cast("Any", Hanging())
    tables = cast("Any", None)
    rooms = Rooms(reader, tables, activity, time.time)
    follower = Follower(reader, tables, activity, rooms, time.time)
    with suppress(TimeoutError):
        async with asyncio.timeout(0.01):
            await follower.read_counts([message])
    assert message.touched is None
