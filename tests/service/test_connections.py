"""Every use of Redis gives its connection back, also after a cancellation."""

import asyncio
import gc
import warnings
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from tests.bench.bench import KEYS, Bench
from tests.redis_server import RedisServer
from worker.store.connection import connect
from worker.store.pending_repairs import GapCause
from worker.store.progress import Progress
from worker.store.tables import Tables

MOST_STEPS = 40
"""Steps of the loop that are enough for each of these calls."""

WRITES: dict[str, Callable[[Tables], Awaitable[object]]] = {
    "owe": lambda tables: tables.pending.mark(["room", "hall"], GapCause.FORBIDDEN),
    "debts": lambda tables: tables.pending.read_all(["room", "hall"]),
    "save progress": lambda tables: tables.progress.save(
        Progress("2", "1", None, 0), "room", "hall"
    ),
    "end a look": lambda tables: tables.progress.end_look("room"),
}


@pytest.mark.parametrize("write", WRITES)
async def test_a_cancelled_call_returns_its_connection(
    valkey: RedisServer, real_redis: Redis, write: str
) -> None:
    """Each step of the loop is tried. A lost connection would be closed by garbage collection."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        async with connect(valkey.url) as redis:
            tables = Tables(redis, KEYS)
            await tables.pending.mark(
                ["room"], GapCause.FORBIDDEN
            )  # it knows the scripts, and is connected
            for steps in range(MOST_STEPS):
                writing = asyncio.ensure_future(WRITES[write](tables))
                for _ in range(steps):
                    await asyncio.sleep(0)
                writing.cancel()
                await asyncio.wait([writing])
        del writing
        gc.collect()

    assert [str(warning.message)[:60] for warning in caught] == []


async def test_marks_survive_a_forgotten_script(bench: Bench) -> None:
    """A failover or a flush forgets scripts. All channels of one call are marked."""
    await bench.tables.pending.mark(["room"], GapCause.FORBIDDEN)
    await cast("Any", bench.redis).script_flush()
    await bench.tables.pending.mark(["room", "hall"], GapCause.OVERFLOW)

    debts = await bench.tables.pending.read_all(["room", "hall"])
    assert {channel: set(owed) for channel, owed in debts.items()} == {
        "room": {GapCause.FORBIDDEN, GapCause.OVERFLOW},
        "hall": {GapCause.OVERFLOW},
    }
