"""Pages share what Redis answers: probes are writes, and many programs look at a worker."""

import asyncio
from typing import Any, cast

from redis.asyncio import Redis
from structlog.testing import capture_logs

from reaction_tally.keys import Keys
from tests.redis_server import RedisServer
from tests.waiting import wait_until
from worker.service.redis_check import FRESH_SECONDS, RedisCheck
from worker.store.connection import connect
from worker.store.tables import Tables


class Clock:
    """The time, as a test sets it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


async def probes(redis: Redis) -> int:
    """Return how many scripts ran in Redis."""
    statistics = await cast("Any", redis).info("commandstats")
    calls: int = statistics.get("cmdstat_evalsha", {"calls": 0})["calls"]
    return calls


async def test_ten_probes_a_second_cost_one(valkey: RedisServer) -> None:
    """At the same time or one after the other. Later it is asked again."""
    clock = Clock()
    async with connect(valkey.url) as redis:
        check = RedisCheck(Tables(redis, Keys()), clock)
        await check.problem()  # the script is loaded now
        clock.now += FRESH_SECONDS
        before = await probes(redis)
        await asyncio.gather(*(check.problem() for _ in range(10)))
        for _ in range(10):
            await check.problem()
        once = await probes(redis)
        clock.now += FRESH_SECONDS
        await check.problem()
        twice = await probes(redis)

    assert (once - before, twice - before) == (1, 2)
    assert check.is_readable


async def test_a_redis_that_may_evict_tallies_is_unfit() -> None:
    """Until it keeps all data again. One that hangs says nothing of that."""
    clock = Clock()
    with RedisServer() as valkey:
        async with connect(valkey.url) as redis, connect(valkey.url) as administrator:
            check = RedisCheck(Tables(redis, Keys()), clock)
            tolerant = RedisCheck(Tables(redis, Keys()), clock, allow_eviction=True)
            commands = cast("Any", administrator)
            with capture_logs() as entries:
                assert await check.fitness_problem() is None
                await commands.config_set("maxmemory-policy", "allkeys-lru")
                clock.now += FRESH_SECONDS
                unfit = await check.fitness_problem()
                allowed = await tolerant.fitness_problem()
                await commands.client_pause(600_000, all=False)
                clock.now += FRESH_SECONDS
                while_hanging = await check.fitness_problem()
                await commands.client_unpause()
                await commands.config_set("maxmemory-policy", "noeviction")
                clock.now += FRESH_SECONDS
                fit = await check.fitness_problem()

    assert unfit == while_hanging
    assert str(unfit).startswith("Redis has maxmemory-policy allkeys-lru: it would delete counts")
    assert allowed is fit is None
    assert [entry["event"] for entry in entries] == ["redis_unfit", "redis_fit_again"]


async def test_a_check_that_runs_takes_nothing_from_another_page() -> None:
    """A page that has its answer reads the backlog, whatever another one waits for."""
    clock = Clock()
    with RedisServer() as valkey:
        async with connect(valkey.url) as redis, connect(valkey.url) as administrator:
            check = RedisCheck(Tables(redis, Keys()), clock)
            assert await check.problem() is None
            commands = cast("Any", administrator)
            await commands.client_pause(600_000, all=True)
            clock.now += FRESH_SECONDS
            other = asyncio.create_task(check.problem())
            await asyncio.sleep(0)
            while_asked = check.is_readable
            await wait_until(other.done)

    assert while_asked
    assert other.result() == "no answer in 2 s"
    assert not check.is_readable
