"""Redis hangs, forgets, disconnects or fills up: a whole worker waits, and ends exact."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest

from tests.bench.commands import following
from tests.bench.in_process import APPLY_WAIT_SECONDS, Running
from tests.end_to_end.processes import MESSAGE, ROOM, Crowd, Stage, wait_until
from tests.redis_server import RedisServer
from worker.errors import ExitCode
from worker.store.connection import SOCKET_TIMEOUT_SECONDS, connect


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make waits for Redis short."""
    monkeypatch.setattr("worker.store.redis_retry.LONGEST_WAIT_SECONDS", 0.1)


async def logs(worker: Running, event: str) -> None:
    """Wait until a worker has logged an entry of that name."""
    await wait_until(
        lambda: worker.entries(event), APPLY_WAIT_SECONDS, what=lambda: worker.err[-3000:]
    )


async def has_nothing_in_hand(stage: Stage, worker: Running) -> None:
    """Wait until the first answer is applied, and its cursor saved."""

    async def is_idle() -> bool:
        return bool(await stage.cursors()) and not await stage.redis.keys("tally:*:progress")

    await wait_until(is_idle, APPLY_WAIT_SECONDS, what=lambda: worker.err[-3000:])


async def test_a_long_hang_reads_answers_again(stage: Stage) -> None:
    """Answers that waited longer than the settle time are dropped."""
    loop = asyncio.get_running_loop()
    async with following(stage, TALLY_SETTLE_SECONDS="0.5") as worker:
        await has_nothing_in_hand(stage, worker)
        async with stage.hanging_redis():
            await stage.fills_the_queue()
            over = loop.time() + 0.6
            await wait_until(lambda: loop.time() > over)

        await stage.settles()
        assert worker.entries("answer_dropped"), worker.err


async def test_a_slow_drain_fails(stage: Stage) -> None:
    """Redis hangs, so a stop ends after TALLY_DRAIN_SECONDS with 1. No answer is lost."""
    async with (
        AsyncExitStack() as until_it_has_ended,
        following(stage, TALLY_DRAIN_SECONDS="0.3") as worker,
    ):
        await has_nothing_in_hand(stage, worker)
        await until_it_has_ended.enter_async_context(stage.hanging_redis())
        await stage.fills_the_queue()

    assert worker.work.result() is ExitCode.FAILED
    assert worker.entries("drain_timed_out")
    async with following(stage):
        await stage.settles()


async def forgets_its_scripts(stage: Stage) -> None:
    """Let Redis forget every script."""
    await stage.redis.script_flush()


async def cuts_connections(stage: Stage) -> None:
    """Let Redis cut every connection but ours."""
    await stage.redis.client_kill_filter(_type="normal", skipme=True)


@pytest.mark.parametrize("trouble", [forgets_its_scripts, cuts_connections])
async def test_repeated_trouble_loses_nothing(
    stage: Stage, trouble: Callable[[Stage], Awaitable[None]]
) -> None:
    """Under load nothing is quarantined, missing or owed."""
    crowd = Crowd(stage.state, seed=42)

    async def goes_on() -> bool:
        await trouble(stage)
        return crowd.acts >= 100

    async with following(stage) as worker:
        async with crowd.acting(stage.emulator, per_second=100):
            await wait_until(goes_on, APPLY_WAIT_SECONDS, what=lambda: worker.err[-2500:])
        await stage.settles()
        assert await stage.quarantine() == []
        assert await stage.owed() == {"first_start"}


async def test_a_full_redis_is_waited_out(stage: Stage) -> None:
    """Live events wait, and so does a replay that PubNub slows down."""
    crowd = Crowd(stage.state, seed=44)
    for number in range(500):
        stage.state.add(ROOM, MESSAGE, "reaction", "👍", f"old-{number}", published=False)
    stage.state.set_outage("throttle", ["actions"])
    async with following(stage) as worker:
        await wait_until(lambda: stage.emulator.requests["actions"] > 0)
        async with crowd.acting(stage.emulator):
            await stage.redis.config_set("maxmemory", 1)
            try:
                await crowd.has_acted(10)
                await logs(worker, "redis_unavailable")
                stage.state.set_outage(None)
            finally:
                await stage.redis.config_set("maxmemory", 0)

        await stage.settles()
        assert await stage.quarantine() == []


async def test_a_cancelled_call_waits_for_no_answer(stage: Stage, valkey: RedisServer) -> None:
    """Each step of a command is tried: on Python 3.11 redis-py loses a cancellation in one."""
    async with connect(valkey.url) as redis:
        for steps in range(20):
            await redis.ping()  # now it is connected
            async with stage.hanging_redis():
                asking = asyncio.create_task(cast("Any", redis).set("key", steps, px=60_000))
                for _ in range(steps):
                    await asyncio.sleep(0)
                asking.cancel()
                done, _ = await asyncio.wait([asking], timeout=SOCKET_TIMEOUT_SECONDS / 2)
            assert done, f"cancelled at step {steps}, it waits for an answer"
            assert asking.cancelled()
