"""A process remembers what Redis has acknowledged, as long as nothing later proves it."""

from typing import Final

import pytest
from redis.asyncio import Redis

from reaction_tally.journal import START
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

    assert marks_of(acknowledged) == {(UNPROVEN, "room")}
    assert acknowledged.saves == {"subscription": 1}


async def test_a_cursor_under_way_proves_no_later_mark(
    tables: Tables, acknowledged: Acknowledged
) -> None:
    """The mark may have reached Redis after the cursor, though it was acknowledged before."""
    sent = acknowledged.mark_count
    await tables.pending.mark(["room"], OVERFLOW)
    acknowledged.note_save("subscription", 1, sent)

    assert marks_of(acknowledged) == {(OVERFLOW, "room")}
    assert acknowledged.proven == {}


async def test_marks_taken_back_are_forgotten(tables: Tables, acknowledged: Acknowledged) -> None:
    """Once nothing is left of the channel's."""
    for channel in ("hall", "room"):
        await tables.pending.mark([channel], OVERFLOW)
        await tables.pending.mark([channel], UNPROVEN)
    held = await tables.pending.read_all(["hall", "room"])

    await tables.pending.clear("room", held["room"])
    await tables.pending.clear("hall", {OVERFLOW: held["hall"][OVERFLOW]})

    assert marks_of(acknowledged) == {(OVERFLOW, "hall"), (UNPROVEN, "hall")}


async def test_channels_are_remembered(
    redis: Redis, tables: Tables, acknowledged: Acknowledged
) -> None:
    """Those of other processes, too."""
    await Tables(redis, Keys()).channels.add(["hall"])
    await tables.channels.add(["room"])
    assert acknowledged.channels == {"room"}

    await tables.channels.all()

    assert acknowledged.channels == {"hall", "room"}


def test_heads_before_those_of_others_stay_until_the_signs_were_read_again() -> None:
    """Their entries may be gone, though a newer one of another process is there."""
    acknowledged = in_cluster()
    acknowledged.note_head("room", "1-0", START)
    acknowledged.note_head("room", "2-0", "1-0")
    assert acknowledged.older_heads == set()

    acknowledged.note_head("room", "4-0", "3-0")
    assert acknowledged.older_heads == {("room", "2-0")}
    assert acknowledged.positions() == [("room", "4-0"), ("room", "2-0")]
    items = acknowledged.unconfirmed()
    acknowledged.note_head("room", "6-0", "5-0")
    acknowledged.confirm(items)
    assert acknowledged.older_heads == {("room", "4-0")}


def test_marks_are_remembered_until_their_end_is_confirmed() -> None:
    """Redis may lose at once that they were taken back, and what their repair has written."""
    acknowledged = in_cluster()
    acknowledged.note_marks(OVERFLOW, ["hall", "room"])
    acknowledged.note_save("subscription", 1, acknowledged.mark_count)
    assert marks_of(acknowledged) == {(OVERFLOW, "hall"), (OVERFLOW, "room")}

    acknowledged.note_taken_back("hall")
    acknowledged.note_taken_back("room")
    items = acknowledged.unconfirmed()
    acknowledged.note_marks(UNPROVEN, ["room"])
    assert len(marks_of(acknowledged)) == 3
    acknowledged.confirm(items)
    assert marks_of(acknowledged) == {(UNPROVEN, "room")}


def in_cluster() -> Acknowledged:
    """Return what a process in a cluster remembers."""
    acknowledged = Acknowledged()
    acknowledged.is_cluster = True
    return acknowledged


def marks_of(acknowledged: Acknowledged) -> set[tuple[str, str]]:
    """Return cause and channel of the marks that nothing proves."""
    return {(cause, channel) for channel, causes in acknowledged.marks.items() for cause in causes}
