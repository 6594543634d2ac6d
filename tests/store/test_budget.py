"""The request budget that all processes share."""

import pytest
from redis.asyncio import Redis

from worker.store.budget import BURST, Budget
from worker.store.keys import Keys


async def test_the_budget_spaces_requests_out(redis: Redis) -> None:
    """After a burst, all processes together send one request an interval. A hold is for all."""
    waits: list[float] = []

    async def note(seconds: float) -> None:
        waits.append(seconds)

    here, there = (Budget(redis, Keys(), rate=0.001, sleep=note) for _ in range(2))
    for _ in range(BURST):
        await here.take()
    assert waits == []

    await there.take()
    await here.take()
    assert waits == [pytest.approx(1_000, abs=400), pytest.approx(2_000, abs=400)]

    await there.hold(100_000)
    await here.take()
    assert waits[-1] == pytest.approx(100_000, abs=400)
