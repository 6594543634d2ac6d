"""Cursors, debts, progress, channels, quarantine, budget: what a worker must not forget."""

import asyncio
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from worker.domain.position import Cursor
from worker.store.budget import BURST, Budget
from worker.store.connection import connect
from worker.store.keys import Keys
from worker.store.marks import FORGOTTEN_SECONDS, GapCause, Marks, Progress
from worker.store.rollback_detector import RollbackDetector

KEYS = Keys()


@pytest.fixture
def marks(redis: Redis) -> Marks:
    """The marks of an empty namespace."""
    return Marks(redis, KEYS)


async def test_a_cursor_comes_back_with_its_age(marks: Marks, redis: Redis) -> None:
    """Saved verbatim; aged by Redis's clock."""
    await marks.save_cursor("s", Cursor("17600000001728660", 43))

    saved = await marks.cursor("s")

    assert saved is not None
    assert saved.cursor == Cursor("17600000001728660", 43)
    assert 0 <= saved.age_seconds < 1_000
    await cast("Any", redis).hincrby(KEYS.cursor("s"), "saved_at", -10_000)
    old = await marks.cursor("s")
    assert old is not None
    assert 10_000 <= old.age_seconds < 11_000


@pytest.mark.parametrize("field", ["timetoken", "region", "saved_at"])
async def test_half_a_cursor_is_no_cursor(marks: Marks, redis: Redis, field: str) -> None:
    """Better a gap that is owed than a place that was guessed."""
    await marks.save_cursor("s", Cursor("1", 1))
    await cast("Any", redis).hdel(KEYS.cursor("s"), field)

    assert await marks.cursor("s") is None


async def test_a_later_gap_moves_the_mark(marks: Marks, redis: Redis) -> None:
    """The newest gap of a cause counts: a repair begun before it does not repay it."""
    await marks.owe(["room"], GapCause.OVERFLOW)
    await cast("Any", redis).hset(KEYS.owed("room"), "overflow", 5)
    before = await marks.now()
    await marks.owe(["room", "hall"], GapCause.OVERFLOW)

    owed = await marks.owed("room")

    assert set(owed) == {"overflow"}
    assert owed["overflow"] >= before
    assert set(await marks.owed("hall")) == {"overflow"}
    assert await marks.owed("yard") == {}


async def test_no_mark_has_the_same_time_twice(marks: Marks, redis: Redis) -> None:
    """As fast as one can ask: a reconcile that repaid the one before must not be taken for the repair of this one."""
    seen = []
    for _ in range(50):
        await marks.owe(["room"], GapCause.OVERFLOW)
        seen.append((await marks.owed("room"))["overflow"])

    assert seen == sorted(set(seen))
    assert seen[-1] < await marks.now() + 50


async def test_a_mark_is_the_time_of_its_gap(real_redis: Redis) -> None:
    """In milliseconds, by Redis's clock; late in a second, where a wrong unit shows."""
    marks = Marks(real_redis, KEYS)
    while await marks.now() % 1000 < 900:  # noqa: ASYNC110 - Redis tells nobody what time it is
        await asyncio.sleep(0.01)
    for number in range(20):
        before = await marks.now()
        await marks.owe([f"room{number}"], GapCause.OVERFLOW)

        assert before <= (await marks.owed(f"room{number}"))["overflow"] <= await marks.now()


async def test_a_mark_grows_though_the_clock_went_back(marks: Marks, redis: Redis) -> None:
    """It is one later than it was, not now; of its own cause only."""
    future = await marks.now() + 1_000_000
    await cast("Any", redis).hset(KEYS.owed("room"), "overflow", future)

    await marks.owe(["room"], GapCause.OVERFLOW)
    await marks.owe(["room"], GapCause.OVERFLOW)
    await marks.owe(["room"], GapCause.FORBIDDEN)

    owed = await marks.owed("room")
    assert owed["overflow"] == future + 2
    assert owed["forbidden"] < future


async def test_debts_are_told_of_those_that_have_some(marks: Marks) -> None:
    """Every cause of every channel asked about, and nobody else's."""
    await marks.owe(["room", "hall", "attic"], GapCause.OVERFLOW)
    await marks.owe(["hall"], GapCause.UNPROVEN)

    debts = await marks.debts(["yard", "room", "hall"])

    assert {channel: set(owed) for channel, owed in debts.items()} == {
        "room": {"overflow"},
        "hall": {"overflow", "unproven"},
    }
    assert await marks.debts([]) == {}


async def test_only_unchanged_marks_are_repaid(marks: Marks) -> None:
    """What came or moved while the reconcile was under way stays; how many those are is told."""
    for gap in (GapCause.OVERFLOW, GapCause.FORBIDDEN, GapCause.FIRST_START):
        await marks.owe(["room", "hall"], gap)
    seen = await marks.owed("room")
    await marks.owe(["room"], GapCause.FORBIDDEN)
    await marks.owe(["room"], GapCause.STALE_CURSOR)

    assert await marks.repay("room", seen) == 2

    left = await marks.owed("room")
    assert set(left) == {"forbidden", "stale_cursor"}
    assert left["forbidden"] > seen["forbidden"]
    assert await marks.repay("room", seen) == 2
    assert await marks.repay("room", left) == 0
    assert await marks.owed("room") == {}
    assert set(await marks.owed("hall")) == {"overflow", "forbidden", "first_start"}


async def test_repaying_nothing_takes_nothing_back(marks: Marks) -> None:
    """A reconcile that began too early saw no mark to repay."""
    await marks.owe(["room"], GapCause.OVERFLOW)

    assert await marks.repay("room", {}) == 1
    assert await marks.repay("yard", {"overflow": 5}) == 0
    assert set(await marks.owed("room")) == {"overflow"}


async def test_saves_of_a_cursor_are_numbered(marks: Marks) -> None:
    """One by one, whoever saves; each subscription by itself."""
    assert await marks.save_cursor("s", Cursor("1", 1)) == 1
    assert await marks.save_cursor("s", Cursor("2", 1), 1) == 2
    assert await marks.save_cursor("s", Cursor("3", 1), 1) == 3
    assert await marks.save_cursor("t", Cursor("9", 1)) == 1

    saved = await marks.cursor("s")
    assert saved is not None
    assert (saved.cursor, saved.saves) == (Cursor("3", 1), 3)


@pytest.mark.parametrize("forgotten", ["all", "the newest"])
async def test_a_redis_that_forgot_a_save_is_told_no_other(
    marks: Marks, redis: Redis, forgotten: str
) -> None:
    """Emptied, or an older copy: the cursor must not pass over the events that are forgotten with it."""
    for number in range(3):
        await marks.save_cursor("s", Cursor(str(number + 1), 1), number)
    if forgotten == "all":
        await redis.delete(KEYS.cursor("s"))
    else:
        await cast("Any", redis).hset(KEYS.cursor("s"), mapping={"timetoken": "2", "saves": 2})

    assert await marks.save_cursor("s", Cursor("4", 1), 3) == 0

    saved = await marks.cursor("s")
    assert (saved and saved.cursor) == (None if forgotten == "all" else Cursor("2", 1))
    assert await marks.save_cursor("s", Cursor("5", 1)) == (1 if forgotten == "all" else 3)


async def test_a_cursor_without_a_number_is_saved_on(marks: Marks, redis: Redis) -> None:
    """As an older version of this worker left it."""
    await marks.save_cursor("s", Cursor("1", 1))
    await cast("Any", redis).hdel(KEYS.cursor("s"), "saves")

    saved = await marks.cursor("s")

    assert saved is not None
    assert saved.saves == 0
    assert await marks.save_cursor("s", Cursor("2", 1), saved.saves) == 1


async def test_a_cursor_may_be_saved_as_of_a_while_ago(marks: Marks) -> None:
    """Its age goes on from there; nothing is ever of the future."""
    await marks.save_cursor("s", Cursor("1", 1), age_seconds=10_000)
    await marks.save_cursor("t", Cursor("1", 1), age_seconds=-10_000)

    old, new = await marks.cursors(["s", "t"])

    assert old
    assert new
    assert 10_000 <= old.age_seconds < 11_000
    assert 0 <= new.age_seconds < 1_000


async def test_the_freshest_cursor_speaks_first(marks: Marks, redis: Redis) -> None:
    """Of as fresh ones that of fewer names; one that was never saved, or by nobody registered, not at all."""
    now = await marks.now() // 1000
    for name, names, age in [("whole", "abcd", 30), ("half", "ab", 30), ("new", "cd", 10)]:
        await marks.register(name, names)
        await marks.save_cursor(name, Cursor("1", 1))
        await cast("Any", redis).hset(KEYS.cursor(name), "saved_at", now - age)
    await marks.register("begun", "e")
    await marks.save_cursor("unknown", Cursor("1", 1))

    assert ["".join(names) for names, _ in await marks.followed()] == ["cd", "ab", "abcd"]


async def test_who_was_not_there_for_a_day_is_forgotten(marks: Marks, redis: Redis) -> None:
    """Its names, not its cursor; the others stay for another day whenever a worker shows itself."""
    for name, age in [("old", FORGOTTEN_SECONDS + 10), ("new", 5)]:
        await marks.register(name, [name])
        await marks.save_cursor(name, Cursor("1", 1), age_seconds=age)

    assert [names for names, _ in await marks.followed()] == [("new",)]
    assert await cast("Any", redis).hkeys(KEYS.subscriptions) == ["new"]
    assert await marks.cursor("old")
    await redis.expire(KEYS.subscriptions, 100)
    await marks.still_here()
    assert await redis.ttl(KEYS.subscriptions) > FORGOTTEN_SECONDS - 1_000


async def test_debts_are_found_among_thousands_that_owe_nothing(marks: Marks) -> None:
    """In whichever part they lie."""
    channels = [f"channel-{number:04}" for number in range(1_200)]
    await marks.owe([channels[3], channels[1_100]], GapCause.OVERFLOW)

    assert set(await marks.debts(channels)) == {channels[3], channels[1_100]}


async def test_the_time_is_redis_own(marks: Marks, redis: Redis) -> None:
    """In milliseconds."""
    before = await redis.time()
    now = await marks.now()
    after = await redis.time()

    assert before[0] * 1000 + before[1] // 1000 <= now <= after[0] * 1000 + after[1] // 1000


async def test_a_server_is_known_by_its_run(real_redis: Redis) -> None:
    """The same to every connection, and what a new connection is compared with."""
    rollback_detector = RollbackDetector()
    told = await Marks(real_redis, KEYS).server()
    assert told
    assert len(told) == 40
    kwargs = real_redis.connection_pool.connection_kwargs
    async with connect(f"redis://{kwargs['host']}:{kwargs['port']}", rollback_detector) as redis:
        await redis.get("tally:meta")
        assert rollback_detector._server == told == await Marks(redis, KEYS).server()


async def test_channels_are_unknown_until_remembered(marks: Marks) -> None:
    """Asking changes nothing: what is owed to a new channel is marked between the two."""
    assert await marks.unknown(["a", "b"]) == {"a", "b"}
    await marks.remember(["a", "b"])
    assert await marks.unknown(["b", "c"]) == {"c"}
    assert await marks.unknown([]) == frozenset()
    await marks.remember([])
    assert await marks.channels() == {"a", "b"}


async def test_progress_is_kept_until_it_ends(marks: Marks) -> None:
    """A backfill's place comes back as it was."""
    place = Progress(newest="9", next="5", oldest="3", actions=300)
    await marks.save_progress(place, "room", "hall")
    assert await marks.places(["room", "hall", "yard"]) == {"room": place, "hall": place}

    assert await marks.end_progress("room") is False
    assert await marks.progress("room") is None
    assert await marks.progress("hall") == place


async def test_what_is_asked_for_again_outlives_the_end(marks: Marks) -> None:
    """One step: no kill comes between the end of one backfill and the place of the next."""
    await marks.save_progress(Progress(newest="9", next="5", oldest="3", actions=300), "room")
    await marks.ask_again("12", "room")
    await marks.save_progress(Progress(newest="9", next="4", oldest="3", actions=400), "room")

    assert await marks.end_progress("room") is True
    assert await marks.progress("room") == Progress("12", "12")
    assert await marks.end_progress("room") is False


async def test_the_quarantine_keeps_anything(marks: Marks, redis: Redis) -> None:
    """Lone surrogates as escapes, long payloads cut."""
    await marks.quarantine("room", "a reason", '"\ud83d"' + "x" * 10_000)

    [(_, entry)] = await cast("Any", redis).xrange(KEYS.quarantine)
    assert entry["channel"] == "room"
    assert entry["reason"] == "a reason"
    assert entry["payload"].startswith('"\\ud83d"x')
    assert len(entry["payload"]) == 4096


async def test_the_budget_spaces_requests_out(redis: Redis) -> None:
    """A burst at once, then one an interval, for all who share it; a hold is for all."""
    waits: list[float] = []

    async def note(seconds: float) -> None:
        waits.append(seconds)

    here, there = (Budget(redis, KEYS, rate=0.001, sleep=note) for _ in range(2))
    for _ in range(BURST):
        await here.take()
    assert waits == []

    await there.take()
    await here.take()
    assert waits == [pytest.approx(1_000, abs=400), pytest.approx(2_000, abs=400)]

    await there.hold(100_000)
    await here.take()
    assert waits[-1] == pytest.approx(100_000, abs=400)
