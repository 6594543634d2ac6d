"""Ours: one subscription of the worker, from PubNub's answer to Redis.

The background work is left out: HTTP, rounds, repairs. ``race.py`` makes all channels known.
"""

import asyncio
import random
from typing import Any

from reaction_tally.keys import Keys
from tests.benchmarks.contenders.order import Order, Report, Stopwatch, take_part_in_a_loop
from worker.applying.apply import Applier
from worker.domain.position import Cursor
from worker.live.assignment import Assignment
from worker.live.gaps import CoveredChannels, Gaps
from worker.live.group_commit import GroupCommit
from worker.live.polling import Polling
from worker.live.subscription import Subscription
from worker.live.subscription_cursor import SubscriptionCursor
from worker.source.backoff import Backoff, elapsed_clock
from worker.source.client import Client, Keyset
from worker.source.live import Poller
from worker.source.names import Names
from worker.source.reachability import Reachability
from worker.source.wire import CountedTypes
from worker.store.connection import connect
from worker.store.redis_retry import RedisRetry
from worker.store.script_call import CursorSave
from worker.store.store import Store
from worker.store.tables import Tables
from worker.telemetry.logs import configure


class WatchedCursor(SubscriptionCursor):
    """Tells when the last cursor is saved."""

    last = ""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.is_last = asyncio.Event()

    async def saved(self, save: CursorSave, covered_until: float) -> None:
        """Go on, unless it is the last one."""
        await super().saved(save, covered_until)
        if save.cursor.timetoken == self.last:
            self.is_last.set()


async def no_repair(*_: object) -> None:
    """Repair nothing: that is another benchmark."""


async def contend(order: Order) -> Report:
    """Follow until the last cursor is saved."""
    configure("json", "error")
    keys = Keys()
    keyset = Keyset("demo", "bench", origin=order.origin, tls=False)
    async with connect(order.redis) as redis, Client(keyset) as client:
        retry = RedisRetry(elapsed_clock)
        tables, names = Tables(redis, keys, retry), Names.of(order.names)
        applier = Applier(Store(redis, keys), tables, retry, 60)
        reachability = Reachability(Backoff(random.Random(1)), elapsed_clock)
        poller = Poller(client, names, reachability, elapsed_clock)
        detector = retry.rollback_detector
        cursor = WatchedCursor(names, tables.cursors, detector, elapsed_clock)
        cursor.last = order.last
        subscription = Subscription(
            Assignment(names),
            Polling(poller, CountedTypes(), elapsed_clock),
            GroupCommit(applier),
            CoveredChannels(names, tables.channels, client, Gaps(tables, no_repair), 600),
            cursor,
        )
        await tables.cursors.save(CursorSave(subscription.id, Cursor(order.first, 1)))
        watch = Stopwatch()
        running = asyncio.create_task(subscription.run())
        await cursor.is_last.wait()
        report = watch.report()
        subscription.stop()
        await running
        return report


if __name__ == "__main__":
    take_part_in_a_loop(contend)
