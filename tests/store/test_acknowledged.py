"""A process remembers what Redis has acknowledged, as long as nothing later proves it."""

from typing import Final

import pytest
from redis.asyncio import Redis

from reaction_tally.keys import Keys
from tests.cursors import save_cursor
from worker.domain.position import Cursor
from worker.source.backoff import elapsed_clock
from worker.store.acknowledged import Acknowledged
from worker.store.pending_repairs import GapCause
from worker.store.redis_retry import RedisRetry
from worker.store.tables import Tables

CURSOR: Final = Cursor("17600000000000000", 1)
OVERFLOW, UNPROVEN = GapCause.OVERFLOW, GapCause.UNPROVEN


@pytest.fixture
def tables(redis: Redis) -> Tables:
    """Return the tables of a process that remembers."""
    return Tables(redis, Keys(), RedisRetry(elapsed_clock))


@pytest.fixture
def acknowledged(tables: Tables) -> Acknowledged:
    """Return what the process remembers."""
    assert tables.pending.retry
    return tables.pending.retry.rollback_detector.acknowledged


async def test_a_saved_cursor_proves_the_marks_before(
    tables: Tables, acknowledged: Acknowledged
) -> None:
    """Those after it are remembered."""
    await tables.pending.mark(["hall", "room"], OVERFLOW)
    await save_cursor(tables.cursors, "subscription", CURSOR)
    await tables.pending.mark(["room"], UNPROVEN)

    assert set(acknowledged.marks) == {(UNPROVEN, "room")}
    assert acknowledged.saves == {"subscription": 1}


async def test_a_cursor_under_way_proves_no_later_mark(
    tables: Tables, acknowledged: Acknowledged
) -> None:
    """The mark may have reached Redis after the cursor, though it was acknowledged before."""
    sent = acknowledged.mark_count
    await tables.pending.mark(["room"], OVERFLOW)
    acknowledged.note_save("subscription", 1, sent)

    assert set(acknowledged.marks) == {(OVERFLOW, "room")}


async def test_marks_taken_back_are_forgotten(tables: Tables, acknowledged: Acknowledged) -> None:
    """Once nothing is left of the channel's."""
    for channel in ("hall", "room"):
        await tables.pending.mark([channel], OVERFLOW)
        await tables.pending.mark([channel], UNPROVEN)
    held = await tables.pending.read_all(["hall", "room"])

    await tables.pending.clear("room", held["room"])
    await tables.pending.clear("hall", {OVERFLOW: held["hall"][OVERFLOW]})

    assert set(acknowledged.marks) == {(OVERFLOW, "hall"), (UNPROVEN, "hall")}


async def test_channels_are_remembered(
    redis: Redis, tables: Tables, acknowledged: Acknowledged
) -> None:
    """Those of other processes, too."""
    await Tables(redis, Keys()).channels.add(["hall"])
    await tables.channels.add(["room"])
    assert acknowledged.channels == {"room"}

    await tables.channels.all()

    assert acknowledged.channels == {"hall", "room"}
