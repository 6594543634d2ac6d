"""The health pages say whether a worker lives, and what it waits for."""

import asyncio
import json
from typing import Any

import pytest

from tests.bench.bench import Bench
from tests.bench.comparison import ComparisonBench
from tests.bench.replaying import backfill
from tests.bench.subscriptions import MESSAGE, running_subscriptions
from tests.waiting import wait_until
from worker.domain.position import Cursor
from worker.history.backfill_queue import BackfillQueue
from worker.live.subscriptions import Subscriptions
from worker.service.health import Health
from worker.telemetry.http import Page

MINUTE = 60.0


def health(
    bench: Bench, subscriptions: Subscriptions, backfill_queue: BackfillQueue | None = None
) -> Health:
    """Return the pages of these subscriptions."""
    backfill_queue = backfill_queue or BackfillQueue(backfill(bench, tries=None), bench.tables)
    return Health(
        subscriptions,
        backfill_queue,
        ComparisonBench(bench).reconcile(),
        bench.tables,
        bench.clock,
        [],
    )


def wrong(page: Page) -> set[str]:
    """Return the names of the checks that fail."""
    checks: dict[str, Any] = json.loads(page.body)["checks"]
    return {name for name, check in checks.items() if not check["ok"]}


async def test_a_stuck_poll_fails_livez(bench: Bench) -> None:
    """PubNub neither answers nor closes the connection."""
    async with running_subscriptions(bench, "ab") as subscriptions:
        pages = health(bench, subscriptions)
        bench.clock.now += 6 * MINUTE
        assert wrong(await pages.livez()) == set()
        bench.clock.now += 2 * MINUTE
        assert wrong(await pages.livez()) == {"loops"}


@pytest.mark.parametrize("minutes", [5, 6])
async def test_timely_answers_keep_readyz(bench: Bench, minutes: int) -> None:
    """An idle poll takes 280 s. The first poll after a restart may take as long."""
    async with running_subscriptions(bench, "ab"):
        pass
    async with running_subscriptions(bench, "ab") as subscriptions:
        pages = health(bench, subscriptions)
        assert wrong(await pages.readyz()) == {"backfill"}
        bench.clock.now += minutes * MINUTE
        assert wrong(await pages.readyz()) == {"backfill"} | (
            {"subscriptions"} if minutes > 5 else set()
        )


async def test_a_stale_cursor_fails_readyz(bench: Bench) -> None:
    """The cursor is of yesterday. The first answer will ask for a backfill."""
    async with running_subscriptions(bench, "ab") as subscriptions:
        (yesterday,) = subscriptions.current
    await bench.tables.cursors.save(
        yesterday.id, Cursor("17600000000000000", 1), age=lambda: 86_400
    )
    backfill_queue = BackfillQueue(backfill(bench, tries=None), bench.tables)
    repairing = asyncio.create_task(backfill_queue.run())
    try:
        async with running_subscriptions(bench, "ab", begun=False) as subscriptions:
            pages = health(bench, subscriptions, backfill_queue)
            await wait_until(lambda: backfill_queue.is_idle and bench.emulator.waiting == 1)
            assert wrong(await pages.readyz()) == {"backfill"}
            bench.emulator.state.add("a", MESSAGE, "reaction", "👍", "ana")
            await wait_until(lambda: subscriptions.current[0].has_begun)
            assert wrong(await pages.readyz()) == set()
    finally:
        repairing.cancel()
        await asyncio.gather(repairing, return_exceptions=True)
