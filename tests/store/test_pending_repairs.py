"""The table of pending repairs: marks that channels lack events."""

import asyncio
from typing import Any, cast

from redis.asyncio import Redis

from reaction_tally.keys import Keys
from worker.store.pending_repairs import GapCause
from worker.store.tables import Tables

KEYS = Keys()


async def overflow_mark(tables: Tables, channel: str = "room") -> int:
    """Mark an overflow of a channel; return the mark."""
    await tables.pending.mark([channel], GapCause.OVERFLOW)
    return (await tables.pending.read(channel))["overflow"]


async def test_a_later_gap_moves_the_mark(tables: Tables, redis: Redis) -> None:
    """A repair that began before the newest gap does not repair that gap."""
    await tables.pending.mark(["room"], GapCause.OVERFLOW)
    await cast("Any", redis).hset(KEYS.owed("room"), "overflow", 5)
    before = await tables.server.now()

    await tables.pending.mark(["room", "hall"], GapCause.OVERFLOW)

    marks = await tables.pending.read("room")
    assert set(marks) == {"overflow"}
    assert marks["overflow"] >= before
    assert set(await tables.pending.read("hall")) == {"overflow"}
    assert await tables.pending.read("yard") == {}


async def test_a_mark_is_the_time_of_its_gap(real_redis: Redis) -> None:
    """It is in milliseconds. Late in a second a wrong unit would show."""
    tables = Tables(real_redis, KEYS)
    while await tables.server.now() % 1000 < 900:  # noqa: ASYNC110 - Redis has no alarm clock
        await asyncio.sleep(0.01)
    for number in range(20):
        before = await tables.server.now()
        mark = await overflow_mark(tables, f"room{number}")

        assert before <= mark <= await tables.server.now()


async def test_a_mark_grows_even_if_the_clock_goes_back(tables: Tables, redis: Redis) -> None:
    """The mark grows by 1. Marks of other causes are not affected."""
    future = await tables.server.now() + 20_000
    await cast("Any", redis).hset(KEYS.owed("room"), "overflow", future)

    await overflow_mark(tables)
    await overflow_mark(tables)
    await tables.pending.mark(["room"], GapCause.FORBIDDEN)

    marks = await tables.pending.read("room")
    assert marks["overflow"] == future + 2
    assert marks["forbidden"] < future


async def test_a_mark_of_the_far_future_is_moved_to_now(tables: Tables, redis: Redis) -> None:
    """The clock went back by more than clocks differ: nobody waits until that time."""
    now = await tables.server.now()
    future = {"overflow": now + 7_200_000, "forbidden": now + 40_000, "stale_cursor": now + 10_000}
    await cast("Any", redis).hset(KEYS.owed("room"), mapping=future)

    await tables.pending.renew("room", future)

    marks = await tables.pending.read("room")
    later = await tables.server.now()
    assert now <= marks["overflow"] <= later
    assert now <= marks["forbidden"] <= later
    assert marks["stale_cursor"] == now + 10_001


async def test_marks_are_found_among_thousands_of_channels(tables: Tables) -> None:
    """They may lie in any of the round trips. Channels not asked for are left out."""
    channels = [f"channel-{number:04}" for number in range(1_200)]
    early, late = channels[3], channels[1_100]
    await tables.pending.mark([early, late, "attic"], GapCause.OVERFLOW)
    await tables.pending.mark([late], GapCause.UNPROVEN)

    pending = await tables.pending.read_all(channels)

    causes = {channel: set(marks) for channel, marks in pending.items()}
    assert causes == {early: {"overflow"}, late: {"overflow", "unproven"}}
    assert await tables.pending.read_all([]) == {}


async def test_only_unchanged_marks_are_cleared(tables: Tables) -> None:
    """Marks that are new or moved stay, and are counted."""
    for cause in (GapCause.OVERFLOW, GapCause.FORBIDDEN, GapCause.FIRST_START):
        await tables.pending.mark(["room", "hall"], cause)
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


async def test_a_repair_that_saw_no_mark_clears_none(tables: Tables) -> None:
    """It began before the gap."""
    await tables.pending.mark(["room"], GapCause.OVERFLOW)

    assert await tables.pending.clear("room", {}) == 1
    assert await tables.pending.clear("yard", {"overflow": 5}) == 0


async def test_a_mark_replaces_what_another_program_wrote(redis: Redis, tables: Tables) -> None:
    """It has no other place. The marks of other channels are written at once."""
    await redis.set(KEYS.owed("room"), "not ours")

    await tables.pending.mark(["hall", "room", "yard"], GapCause.OVERFLOW)

    pending = await tables.pending.read_all(["hall", "room", "yard"])
    assert {channel: set(marks) for channel, marks in pending.items()} == {
        "hall": {"overflow"},
        "room": {"overflow"},
        "yard": {"overflow"},
    }


async def test_marks_that_cannot_be_read_are_owed(redis: Redis, tables: Tables) -> None:
    """A channel needs a repair, and its marks go after it. The others have their own."""
    await tables.pending.mark(["hall"], GapCause.OVERFLOW)
    await redis.set(KEYS.owed("room"), "not ours")
    await cast("Any", redis).hset(KEYS.owed("yard"), "forbidden", "yesterday")

    pending = await tables.pending.read_all(["attic", "hall", "room", "yard"])

    assert set(pending.pop("hall")) == {"overflow"}
    assert pending == {"room": {"damaged_key": 0}, "yard": {"forbidden": 0}}
    for channel, marks in pending.items():
        assert await tables.pending.clear(channel, marks) == 0
        assert not await redis.exists(KEYS.owed(channel))


async def test_a_repair_that_began_before_the_damage_leaves_a_mark(
    redis: Redis, tables: Tables
) -> None:
    """Nobody knows which gaps were marked meanwhile."""
    await redis.set(KEYS.owed("room"), "not ours")

    assert await tables.pending.clear("room", {"overflow": 5}) == 1
    assert await tables.pending.read("room") == {"damaged_key": 0}
