"""Cursors, debts, progress, channels, quarantine, budget: what a worker must not forget."""

import asyncio
from functools import partial
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from worker.domain.position import Cursor
from worker.store.budget import BURST, Budget
from worker.store.connection import connect
from worker.store.cursors import FORGOTTEN_SECONDS
from worker.store.keys import Keys
from worker.store.pending_repairs import GapCause
from worker.store.progress import Progress
from worker.store.rollback_detector import RollbackDetector
from worker.store.tables import Tables

KEYS = Keys()


@pytest.fixture
def tables(redis: Redis) -> Tables:
    """The marks of an empty namespace."""
    return Tables.on(redis, KEYS)


async def test_a_cursor_comes_back_with_its_age(tables: Tables, redis: Redis) -> None:
    """Saved verbatim; aged by Redis's clock."""
    await tables.cursors.save("s", Cursor("17600000001728660", 43))

    saved = await tables.cursors.read("s")

    assert saved is not None
    assert saved.cursor == Cursor("17600000001728660", 43)
    assert 0 <= saved.age_seconds < 1_000
    await cast("Any", redis).hincrby(KEYS.cursor("s"), "saved_at", -10_000)
    old = await tables.cursors.read("s")
    assert old is not None
    assert 10_000 <= old.age_seconds < 11_000


@pytest.mark.parametrize("field", ["timetoken", "region", "saved_at"])
async def test_half_a_cursor_is_no_cursor(tables: Tables, redis: Redis, field: str) -> None:
    """Better a gap that is owed than a place that was guessed."""
    await tables.cursors.save("s", Cursor("1", 1))
    await cast("Any", redis).hdel(KEYS.cursor("s"), field)

    assert await tables.cursors.read("s") is None


async def test_a_later_gap_moves_the_mark(tables: Tables, redis: Redis) -> None:
    """The newest gap of a cause counts: a repair begun before it does not repay it."""
    await tables.pending.mark(["room"], GapCause.OVERFLOW)
    await cast("Any", redis).hset(KEYS.owed("room"), "overflow", 5)
    before = await tables.server.now()
    await tables.pending.mark(["room", "hall"], GapCause.OVERFLOW)

    owed = await tables.pending.read("room")

    assert set(owed) == {"overflow"}
    assert owed["overflow"] >= before
    assert set(await tables.pending.read("hall")) == {"overflow"}
    assert await tables.pending.read("yard") == {}


async def test_no_mark_has_the_same_time_twice(tables: Tables, redis: Redis) -> None:
    """As fast as one can ask: a reconcile that repaid the one before must not be taken for the repair of this one."""
    seen = []
    for _ in range(50):
        await tables.pending.mark(["room"], GapCause.OVERFLOW)
        seen.append((await tables.pending.read("room"))["overflow"])

    assert seen == sorted(set(seen))
    assert seen[-1] < await tables.server.now() + 50


async def test_a_mark_is_the_time_of_its_gap(real_redis: Redis) -> None:
    """In milliseconds, by Redis's clock; late in a second, where a wrong unit shows."""
    tables = Tables.on(real_redis, KEYS)
    while await tables.server.now() % 1000 < 900:  # noqa: ASYNC110 - Redis tells nobody what time it is
        await asyncio.sleep(0.01)
    for number in range(20):
        before = await tables.server.now()
        await tables.pending.mark([f"room{number}"], GapCause.OVERFLOW)

        assert (
            before
            <= (await tables.pending.read(f"room{number}"))["overflow"]
            <= await tables.server.now()
        )


async def test_a_mark_grows_though_the_clock_went_back(tables: Tables, redis: Redis) -> None:
    """It is one later than it was, not now; of its own cause only."""
    future = await tables.server.now() + 1_000_000
    await cast("Any", redis).hset(KEYS.owed("room"), "overflow", future)

    await tables.pending.mark(["room"], GapCause.OVERFLOW)
    await tables.pending.mark(["room"], GapCause.OVERFLOW)
    await tables.pending.mark(["room"], GapCause.FORBIDDEN)

    owed = await tables.pending.read("room")
    assert owed["overflow"] == future + 2
    assert owed["forbidden"] < future


async def test_debts_are_told_of_those_that_have_some(tables: Tables) -> None:
    """Every cause of every channel asked about, and nobody else's."""
    await tables.pending.mark(["room", "hall", "attic"], GapCause.OVERFLOW)
    await tables.pending.mark(["hall"], GapCause.UNPROVEN)

    debts = await tables.pending.read_all(["yard", "room", "hall"])

    assert {channel: set(owed) for channel, owed in debts.items()} == {
        "room": {"overflow"},
        "hall": {"overflow", "unproven"},
    }
    assert await tables.pending.read_all([]) == {}


async def test_only_unchanged_marks_are_repaid(tables: Tables) -> None:
    """What came or moved while the reconcile was under way stays; how many those are is told."""
    for gap in (GapCause.OVERFLOW, GapCause.FORBIDDEN, GapCause.FIRST_START):
        await tables.pending.mark(["room", "hall"], gap)
    seen = await tables.pending.read("room")
    await tables.pending.mark(["room"], GapCause.FORBIDDEN)
    await tables.pending.mark(["room"], GapCause.STALE_CURSOR)

    assert await tables.pending.clear("room", seen) == 2

    left = await tables.pending.read("room")
    assert set(left) == {"forbidden", "stale_cursor"}
    assert left["forbidden"] > seen["forbidden"]
    assert await tables.pending.clear("room", seen) == 2
    assert await tables.pending.clear("room", left) == 0
    assert await tables.pending.read("room") == {}
    assert set(await tables.pending.read("hall")) == {"overflow", "forbidden", "first_start"}


async def test_repaying_nothing_takes_nothing_back(tables: Tables) -> None:
    """A reconcile that began too early saw no mark to repay."""
    await tables.pending.mark(["room"], GapCause.OVERFLOW)

    assert await tables.pending.clear("room", {}) == 1
    assert await tables.pending.clear("yard", {"overflow": 5}) == 0
    assert set(await tables.pending.read("room")) == {"overflow"}


async def test_saves_of_a_cursor_are_numbered(tables: Tables) -> None:
    """One by one, whoever saves; each subscription by itself."""
    assert await tables.cursors.save("s", Cursor("1", 1)) == 1
    assert await tables.cursors.save("s", Cursor("2", 1), 1) == 2
    assert await tables.cursors.save("s", Cursor("3", 1), 1) == 3
    assert await tables.cursors.save("t", Cursor("9", 1)) == 1

    saved = await tables.cursors.read("s")
    assert saved is not None
    assert (saved.cursor, saved.saves) == (Cursor("3", 1), 3)


@pytest.mark.parametrize("forgotten", ["all", "the newest"])
async def test_a_redis_that_forgot_a_save_is_told_no_other(
    tables: Tables, redis: Redis, forgotten: str
) -> None:
    """Emptied, or an older copy: the cursor must not pass over the events that are forgotten with it."""
    for number in range(3):
        await tables.cursors.save("s", Cursor(str(number + 1), 1), number)
    if forgotten == "all":
        await redis.delete(KEYS.cursor("s"))
    else:
        await cast("Any", redis).hset(KEYS.cursor("s"), mapping={"timetoken": "2", "saves": 2})

    assert await tables.cursors.save("s", Cursor("4", 1), 3) == 0

    saved = await tables.cursors.read("s")
    assert (saved and saved.cursor) == (None if forgotten == "all" else Cursor("2", 1))
    assert await tables.cursors.save("s", Cursor("5", 1)) == (1 if forgotten == "all" else 3)


async def test_a_cursor_without_a_number_is_saved_on(tables: Tables, redis: Redis) -> None:
    """As an older version of this worker left it."""
    await tables.cursors.save("s", Cursor("1", 1))
    await cast("Any", redis).hdel(KEYS.cursor("s"), "saves")

    saved = await tables.cursors.read("s")

    assert saved is not None
    assert saved.saves == 0
    assert await tables.cursors.save("s", Cursor("2", 1), saved.saves) == 1


async def test_a_cursor_may_be_saved_as_of_a_while_ago(tables: Tables) -> None:
    """Its age goes on from there; nothing is ever of the future."""
    await tables.cursors.save("s", Cursor("1", 1), age=lambda: 10_000)
    await tables.cursors.save("t", Cursor("1", 1), age=lambda: -10_000)

    old, new = await tables.cursors.read_all(["s", "t"])

    assert old
    assert new
    assert 10_000 <= old.age_seconds < 11_000
    assert 0 <= new.age_seconds < 1_000


async def test_the_freshest_cursor_speaks_first(tables: Tables, redis: Redis) -> None:
    """Of as fresh ones that of fewer names; one that was never saved, or by nobody registered, not at all."""
    now = await tables.server.now() // 1000
    for name, names, age in [("whole", "abcd", 30), ("half", "ab", 30), ("new", "cd", 10)]:
        await tables.cursors.register(name, names)
        await tables.cursors.save(name, Cursor("1", 1))
        await cast("Any", redis).hset(KEYS.cursor(name), "saved_at", now - age)
    await tables.cursors.register("begun", "e")
    await tables.cursors.save("unknown", Cursor("1", 1))

    assert ["".join(names) for names, _ in await tables.cursors.followed()] == ["cd", "ab", "abcd"]


async def test_who_was_not_there_for_a_day_is_forgotten(tables: Tables, redis: Redis) -> None:
    """Its names, not its cursor; the others stay for another day whenever a worker shows itself."""
    for name, age in [("old", FORGOTTEN_SECONDS + 10), ("new", 5)]:
        await tables.cursors.register(name, [name])
        await tables.cursors.save(name, Cursor("1", 1), age=partial(float, age))

    assert [names for names, _ in await tables.cursors.followed()] == [("new",)]
    assert await cast("Any", redis).hkeys(KEYS.subscriptions) == ["new"]
    assert await tables.cursors.read("old")
    await redis.expire(KEYS.subscriptions, 100)
    await tables.cursors.keep_registered()
    assert await redis.ttl(KEYS.subscriptions) > FORGOTTEN_SECONDS - 1_000


async def test_debts_are_found_among_thousands_that_owe_nothing(tables: Tables) -> None:
    """In whichever part they lie."""
    channels = [f"channel-{number:04}" for number in range(1_200)]
    await tables.pending.mark([channels[3], channels[1_100]], GapCause.OVERFLOW)

    assert set(await tables.pending.read_all(channels)) == {channels[3], channels[1_100]}


async def test_the_time_is_redis_own(tables: Tables, redis: Redis) -> None:
    """In milliseconds."""
    before = await redis.time()
    now = await tables.server.now()
    after = await redis.time()

    assert before[0] * 1000 + before[1] // 1000 <= now <= after[0] * 1000 + after[1] // 1000


async def test_a_server_is_known_by_its_run(real_redis: Redis) -> None:
    """The same to every connection, and what a new connection is compared with."""
    rollback_detector = RollbackDetector()
    told = await Tables.on(real_redis, KEYS).server.run_id()
    assert told
    assert len(told) == 40
    kwargs = real_redis.connection_pool.connection_kwargs
    async with connect(f"redis://{kwargs['host']}:{kwargs['port']}", rollback_detector) as redis:
        await redis.get("tally:meta")
        assert rollback_detector._server == told == await Tables.on(redis, KEYS).server.run_id()


async def test_channels_are_unknown_until_remembered(tables: Tables) -> None:
    """Asking changes nothing: what is owed to a new channel is marked between the two."""
    assert await tables.channels.unknown(["a", "b"]) == {"a", "b"}
    await tables.channels.add(["a", "b"])
    assert await tables.channels.unknown(["b", "c"]) == {"c"}
    assert await tables.channels.unknown([]) == frozenset()
    await tables.channels.add([])
    assert await tables.channels.all() == {"a", "b"}


async def test_progress_is_kept_until_it_ends(tables: Tables) -> None:
    """A backfill's place comes back as it was."""
    place = Progress(newest="9", next="5", oldest="3", actions=300)
    await tables.progress.save(place, "room", "hall")
    assert await tables.progress.read_all(["room", "hall", "yard"]) == {
        "room": place,
        "hall": place,
    }

    assert await tables.progress.end("room") is False
    assert await tables.progress.read("room") is None
    assert await tables.progress.read("hall") == place


async def test_what_is_asked_for_again_outlives_the_end(tables: Tables) -> None:
    """One step: no kill comes between the end of one backfill and the place of the next."""
    await tables.progress.save(Progress(newest="9", next="5", oldest="3", actions=300), "room")
    await tables.progress.ask_again("12", "room")
    await tables.progress.save(Progress(newest="9", next="4", oldest="3", actions=400), "room")

    assert await tables.progress.end("room") is True
    assert await tables.progress.read("room") == Progress("12", "12")
    assert await tables.progress.end("room") is False


async def test_the_quarantine_keeps_anything(tables: Tables, redis: Redis) -> None:
    """Lone surrogates as escapes, long payloads cut."""
    await tables.dead_letters.add("room", "a reason", '"\ud83d"' + "x" * 10_000)

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
