"""Cursors, debts, progress, channels, quarantine, budget: what a worker must not forget."""

from typing import Any, cast

import pytest
from redis.asyncio import Redis

from worker.domain.position import Cursor
from worker.store.budget import BURST, Budget
from worker.store.keys import Keys
from worker.store.marks import Gap, Marks, Progress

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
    assert 0 <= saved.age_seconds < 5
    await cast("Any", redis).hincrby(KEYS.cursor("s"), "saved_at", -1000)
    old = await marks.cursor("s")
    assert old is not None
    assert 1000 <= old.age_seconds < 1005


@pytest.mark.parametrize("field", ["timetoken", "region", "saved_at"])
async def test_half_a_cursor_is_no_cursor(marks: Marks, redis: Redis, field: str) -> None:
    """Better a gap that is owed than a place that was guessed."""
    await marks.save_cursor("s", Cursor("1", 1))
    await cast("Any", redis).hdel(KEYS.cursor("s"), field)

    assert await marks.cursor("s") is None


async def test_a_later_gap_moves_the_mark(marks: Marks, redis: Redis) -> None:
    """The newest gap of a cause counts: a repair begun before it does not repay it."""
    await marks.owe(["room"], Gap.OVERFLOW)
    await cast("Any", redis).hset(KEYS.owed("room"), "overflow", 5)
    await marks.owe(["room", "hall"], Gap.OVERFLOW)

    owed = await marks.owed("room")

    assert set(owed) == {"overflow"}
    assert owed["overflow"] > 1_700_000_000_000
    assert set(await marks.owed("hall")) == {"overflow"}
    assert await marks.owed("yard") == {}


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

    here, there = (Budget(redis, KEYS, rate=0.5, sleep=note) for _ in range(2))
    for _ in range(BURST):
        await here.take()
    assert waits == []

    await there.take()
    await here.take()
    assert waits == [pytest.approx(2, abs=0.5), pytest.approx(4, abs=0.5)]

    await there.hold(100)
    await here.take()
    assert waits[-1] == pytest.approx(102, abs=2.5)
