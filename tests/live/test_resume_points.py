"""Where a successor goes on, in a cluster: a place is worth what was trusted when it was read."""

from redis.asyncio import Redis

from tests.bench.bench import KEYS
from worker.domain.position import Cursor
from worker.live.subscription_cursor import SubscriptionCursor
from worker.source.backoff import elapsed_clock
from worker.source.names import Names
from worker.store.rollback_detector import RollbackDetector
from worker.store.script_call import CursorSave
from worker.store.tables import Tables


async def test_a_place_has_the_signs_that_its_process_trusts(redis: Redis) -> None:
    """Another worker has saved an older place since. It has compared no more than that.

    An older sign would make a change of names owe channels after each planned failover.
    """
    cursors, detector = Tables(redis, KEYS).cursors, RollbackDetector()
    detector.expect_shards()
    detector.meet("old")
    first, second = (
        SubscriptionCursor(Names.of([name]), cursors, detector, elapsed_clock)
        for name in ("room", "hall")
    )
    await cursors.save(CursorSave(first.subscription, Cursor("9", 1), signs="older"))
    await first.load()
    point = first.resume_point
    assert point
    await cursors.save(CursorSave(first.subscription, Cursor("5", 1), signs="new"))

    await second.adopt(point)
    saved = await cursors.read(second.subscription)
    assert saved
    assert (saved.cursor, saved.signs) == (Cursor("9", 1), "old")
