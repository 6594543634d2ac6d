"""The table of cursors: where each subscription's next read begins, and for which names."""

from functools import partial
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from reaction_tally.keys import Keys
from tests.cursors import save_cursor
from tests.store.examples import counted_calls
from worker.domain.position import Cursor
from worker.errors import ScriptRefusedError
from worker.store.cursors import LIFE_SECONDS, UNKNOWN_AGE_SECONDS, SavedCursor
from worker.store.ownership import FORGOTTEN_SECONDS
from worker.store.script_call import CursorSave
from worker.store.tables import Tables

KEYS = Keys()


async def read(tables: Tables, subscription: str = "s") -> SavedCursor:
    """Return a cursor that was saved."""
    saved = await tables.cursors.read(subscription)
    assert saved
    return saved


async def test_a_cursor_is_read_with_its_age(tables: Tables, redis: Redis) -> None:
    """The cursor is saved verbatim. Its age is by Redis's clock."""
    await save_cursor(tables.cursors, "s", Cursor("17600000001728660", 43))

    saved = await read(tables)

    assert saved.cursor == Cursor("17600000001728660", 43)
    assert 0 <= saved.age_seconds < 1_000
    await cast("Any", redis).hincrby(KEYS.cursor("s"), "saved_at", -10_000)
    assert 10_000 <= (await read(tables)).age_seconds < 11_000


async def test_a_cursor_of_the_future_has_no_known_age(tables: Tables, redis: Redis) -> None:
    """The clock of Redis went back. The cursor counts as an old one, so a gap is marked."""
    await save_cursor(tables.cursors, "s", Cursor("1", 1))
    await cast("Any", redis).hincrby(KEYS.cursor("s"), "saved_at", 100)

    assert (await read(tables)).age_seconds == UNKNOWN_AGE_SECONDS


async def test_a_small_step_of_the_clock_costs_a_cursor_nothing(
    tables: Tables, redis: Redis
) -> None:
    """Clocks of servers differ by seconds. The cursor counts as saved just now."""
    await save_cursor(tables.cursors, "s", Cursor("1", 1))
    await cast("Any", redis).hincrby(KEYS.cursor("s"), "saved_at", 20)

    assert (await read(tables)).age_seconds == 0


@pytest.mark.parametrize("field", ["timetoken", "region", "saved_at"])
async def test_half_a_cursor_is_no_cursor(tables: Tables, redis: Redis, field: str) -> None:
    """Without a cursor a gap is marked. That is better than a guessed cursor."""
    await save_cursor(tables.cursors, "s", Cursor("1", 1))
    await cast("Any", redis).hdel(KEYS.cursor("s"), field)

    assert await tables.cursors.read("s") is None


async def test_saves_of_a_cursor_are_numbered(tables: Tables) -> None:
    """Each subscription has numbers of its own; all workers share them."""
    assert await save_cursor(tables.cursors, "s", Cursor("1", 1)) == 1
    assert await save_cursor(tables.cursors, "s", Cursor("2", 1), 1) == 2
    assert await save_cursor(tables.cursors, "s", Cursor("3", 1), 1) == 3
    assert await save_cursor(tables.cursors, "t", Cursor("9", 1)) == 1

    saved = await read(tables)
    assert (saved.cursor, saved.saves) == (Cursor("3", 1), 3)


@pytest.mark.parametrize("forgotten", ["all", "the newest"])
async def test_no_cursor_is_saved_in_a_redis_that_forgot_one(
    tables: Tables, redis: Redis, forgotten: str
) -> None:
    """Redis has forgotten the events before that cursor, too: they must be read again."""
    for number in range(3):
        await save_cursor(tables.cursors, "s", Cursor(str(number + 1), 1), number)
    if forgotten == "all":
        await redis.delete(KEYS.cursor("s"))
    else:
        await cast("Any", redis).hset(KEYS.cursor("s"), mapping={"timetoken": "2", "saves": 2})

    assert await save_cursor(tables.cursors, "s", Cursor("4", 1), 3) == 0

    saved = await tables.cursors.read("s")
    assert (saved and saved.cursor) == (None if forgotten == "all" else Cursor("2", 1))
    assert await save_cursor(tables.cursors, "s", Cursor("5", 1)) == (
        1 if forgotten == "all" else 3
    )


async def test_a_cursor_without_a_number_counts_as_unsaved(tables: Tables, redis: Redis) -> None:
    """An older version of the worker left such cursors."""
    await save_cursor(tables.cursors, "s", Cursor("1", 1))
    await cast("Any", redis).hdel(KEYS.cursor("s"), "saves")

    saved = await read(tables)

    assert saved.saves == 0
    assert await save_cursor(tables.cursors, "s", Cursor("2", 1), saved.saves) == 1


async def test_a_cursor_may_be_saved_with_an_age(tables: Tables) -> None:
    """A negative age counts as 0: no cursor is from the future."""
    await save_cursor(tables.cursors, "s", Cursor("1", 1), age=lambda: 10_000)
    await save_cursor(tables.cursors, "t", Cursor("1", 1), age=lambda: -10_000)

    assert 10_000 <= (await read(tables, "s")).age_seconds < 11_000
    assert 0 <= (await read(tables, "t")).age_seconds < 1_000


async def test_a_cursor_lives_a_week_from_its_last_save(tables: Tables, redis: Redis) -> None:
    """After that PubNub's cache no longer reaches back to it."""
    week = 7 * 86_400_000
    await save_cursor(tables.cursors, "s", Cursor("1", 1))
    await redis.expire(KEYS.cursor("s"), 100)
    before = await tables.server.now()

    await save_cursor(tables.cursors, "s", Cursor("2", 1))

    life = await redis.pttl(KEYS.cursor("s"))
    elapsed = await tables.server.now() - before
    assert week - elapsed - 1 <= life <= week


async def test_many_cursors_are_saved_by_one_call(
    tables: Tables, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is saved by itself. Without cursors nothing is sent."""
    calls = counted_calls(redis, monkeypatch)
    await save_cursor(tables.cursors, "b", Cursor("1", 1))
    saves = [CursorSave(name, Cursor("2", 2), known) for name, known in [("a", 0), ("b", 2)]]
    calls.clear()

    await tables.cursors.save(*saves)
    await tables.cursors.save()

    assert len(calls) == 1
    assert [save.number for save in saves] == [1, 0]
    assert [(await read(tables, name)).cursor for name in "ab"] == [Cursor("2", 2), Cursor("1", 1)]


async def test_a_cursor_of_a_wrong_type_stops_no_other(tables: Tables, redis: Redis) -> None:
    """The error says why. The other cursors are saved, and their numbers are known."""
    await redis.set(KEYS.cursor("b"), "not ours", ex=1_000)
    saves = [CursorSave(name, Cursor("1", 1)) for name in "abc"]

    with pytest.raises(ScriptRefusedError, match="WRONGTYPE"):
        await tables.cursors.save(*saves)

    assert [save.number for save in saves] == [1, None, 1]
    assert (await read(tables, "c")).saves == 1


async def test_the_freshest_cursor_comes_first(tables: Tables, redis: Redis) -> None:
    """Then the one with the fewest names. A cursor unsaved or unregistered is left out."""
    now = await tables.server.now() // 1000
    for name, names, age in [("whole", "abcd", 30), ("half", "ab", 30), ("new", "cd", 10)]:
        await tables.cursors.register(name, names)
        await save_cursor(tables.cursors, name, Cursor("1", 1))
        await cast("Any", redis).hset(KEYS.cursor(name), "saved_at", now - age)
    await tables.cursors.register("unsaved", "e")
    await save_cursor(tables.cursors, "unregistered", Cursor("1", 1))

    followed = await tables.cursors.followed()

    assert ["".join(names) for names, _ in followed] == ["cd", "ab", "abcd"]


async def test_names_absent_for_a_day_are_forgotten(tables: Tables, redis: Redis) -> None:
    """Their cursor stays. Each heartbeat of a worker keeps the other names for a day."""
    for name, age in [("old", FORGOTTEN_SECONDS + 10), ("new", 5)]:
        await tables.cursors.register(name, [name])
        await save_cursor(tables.cursors, name, Cursor("1", 1), age=partial(float, age))

    assert [names for names, _ in await tables.cursors.followed()] == [("new",)]
    assert await cast("Any", redis).hkeys(KEYS.subscriptions) == ["new"]
    assert await tables.cursors.read("old")
    await redis.expire(KEYS.subscriptions, 100)
    await tables.cursors.keep_registered()
    assert await redis.ttl(KEYS.subscriptions) > FORGOTTEN_SECONDS - 1_000


async def test_names_are_followed_while_their_worker_says_so(tables: Tables, redis: Redis) -> None:
    """Also while PubNub does not answer: nobody saves the cursor then."""
    for name in ("silent", "followed", "saved"):
        await tables.cursors.register(name, [name, f"{name}.*"])
        await save_cursor(tables.cursors, name, Cursor("1", 1))
        left = LIFE_SECONDS if name == "saved" else LIFE_SECONDS - 400
        await redis.expire(KEYS.cursor(name), left)
    await tables.cursors.register("unsaved", ["unsaved"])

    await tables.cursors.keep_followed(["followed", "unsaved"])

    ages = await tables.cursors.names_followed(360)
    assert ages.keys() == {"followed", "followed.*", "saved", "saved.*"}


async def test_a_name_is_as_old_as_its_newest_cursor(tables: Tables, redis: Redis) -> None:
    """A subscription that ended may have had the name, too."""
    for name in ("ended", "silent"):
        await tables.cursors.register(name, ["both", name])
        await save_cursor(tables.cursors, name, Cursor("1", 1))
    seconds, _ = await redis.time()
    await redis.hset(KEYS.cursor("ended"), "saved_at", seconds - 9000)
    await redis.hset(KEYS.cursor("silent"), "saved_at", seconds - 600)

    ages = await tables.cursors.names_followed(360)

    assert {name: round(age, -2) for name, age in ages.items()} == {
        "both": 600,
        "ended": 9000,
        "silent": 600,
    }
