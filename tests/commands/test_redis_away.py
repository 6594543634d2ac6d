"""Redis hangs, forgets, disconnects or fills up: a whole worker waits, and ends exact."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest

from tests.bench.in_process import Running
from tests.crowds import Crowd
from tests.redis_server import Forwarder, RedisServer
from tests.waiting import wait_until
from tests.worlds import MESSAGE, ROOM, World
from worker.errors import ExitCode
from worker.live.answer_queue import QUEUED_ANSWERS
from worker.store.connection import SOCKET_TIMEOUT_SECONDS, connect


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make waits for Redis short."""
    monkeypatch.setattr("worker.store.redis_retry.LONGEST_WAIT_SECONDS", 0.1)


async def logs(worker: Running, event: str) -> None:
    """Wait until a worker has logged an entry of that name."""
    await wait_until(lambda: worker.entries(event), what=lambda: worker.err[-3000:])


async def fill_the_queue(world: World) -> None:
    """Give a worker that cannot apply more answers than it holds.

    One is in hand, others are queued, and the last one finds no room. They are long,
    because after a short answer the worker would wait until it is applied.
    """
    for number in range(QUEUED_ANSWERS + 2):
        polls = world.emulator.requests["subscribe"] + (number <= QUEUED_ANSWERS)
        for user in range(60):
            world.react(uuid=f"user-{number}-{user}")
        await world.has_polled(polls)


async def has_nothing_in_hand(world: World, worker: Running) -> None:
    """Wait until two answers are applied, and their cursors saved.

    After the first cursor of its life a worker has something else to write.
    The second answer is applied when that is written.
    """

    async def saved(times: int) -> bool:
        held = [int(cursor["saves"]) for cursor in (await world.cursors()).values()]
        return bool(held) and min(held) >= times and not await world.redis.keys("tally:*:progress")

    await wait_until(lambda: saved(1), what=lambda: worker.err[-3000:])
    world.react(uuid="second-answer")
    await wait_until(lambda: saved(2), what=lambda: worker.err[-3000:])


async def test_a_long_hang_reads_answers_again(world: World) -> None:
    """Answers that waited longer than the settle time are dropped."""
    loop = asyncio.get_running_loop()
    async with world.run_worker(TALLY_SETTLE_SECONDS="0.5") as worker:
        await has_nothing_in_hand(world, worker)
        async with world.hanging_redis():
            await fill_the_queue(world)
            over = loop.time() + 0.6
            await wait_until(lambda: loop.time() > over)

        await world.settles()
        assert worker.entries("answer_dropped"), worker.err


async def test_a_slow_drain_fails(world: World) -> None:
    """Redis hangs, so a stop ends after TALLY_DRAIN_SECONDS with 1. No answer is lost."""
    async with (
        AsyncExitStack() as until_it_has_ended,
        world.run_worker(TALLY_DRAIN_SECONDS="0.3") as worker,
    ):
        await has_nothing_in_hand(world, worker)
        await until_it_has_ended.enter_async_context(world.hanging_redis())
        await fill_the_queue(world)

    assert worker.work.result() is ExitCode.FAILED
    assert worker.entries("drain_timed_out")
    async with world.run_worker():
        await world.settles()


async def test_a_redis_that_hangs_is_logged(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a call fails: one that hangs for some seconds answers in the end."""
    monkeypatch.setattr("worker.store.redis_retry.HANG_SECONDS", 0.2)
    async with world.run_worker() as worker:
        await has_nothing_in_hand(world, worker)
        async with world.hanging_redis():
            world.react()
            await logs(worker, "redis_unavailable")
        await logs(worker, "redis_answers_again")

    (entry,) = worker.entries("redis_unavailable")
    assert "Redis has not answered for 0.2 s." in entry["reason"]


@pytest.mark.parametrize(
    ("has_answers", "drain", "code"),
    [(False, "60", ExitCode.DONE), (True, "0.3", ExitCode.FAILED)],
    ids=["idle", "busy"],
)
async def test_a_stop_waits_for_no_redis_that_hangs(
    world: World, valkey: RedisServer, drain: str, code: ExitCode, *, has_answers: bool
) -> None:
    """Redis takes connections and answers nothing. A worker ends at once, or after the drain."""
    loop = asyncio.get_running_loop()
    async with Forwarder(valkey.port) as forwarder:
        settings = {"REDIS_URL": forwarder.url, "TALLY_DRAIN_SECONDS": drain}
        async with world.run_worker(**settings) as worker:
            await has_nothing_in_hand(world, worker)
            forwarder.hold_requests()
            if has_answers:
                await fill_the_queue(world)
            began = loop.time()
        seconds = loop.time() - began
        forwarder.let_requests_through()

    assert seconds < SOCKET_TIMEOUT_SECONDS / 2
    assert worker.work.result() is code, worker.err


async def forgets_its_scripts(world: World) -> None:
    """Let Redis forget every script."""
    await world.redis.script_flush()


async def cuts_connections(world: World) -> None:
    """Let Redis cut every connection but ours."""
    await world.redis.client_kill_filter(_type="normal", skipme=True)


@pytest.mark.parametrize("trouble", [forgets_its_scripts, cuts_connections])
async def test_repeated_trouble_loses_nothing(
    world: World, trouble: Callable[[World], Awaitable[None]]
) -> None:
    """Under load nothing is quarantined, missing or owed."""
    crowd = Crowd(world.state, seed=42)

    async def goes_on() -> bool:
        await trouble(world)
        return crowd.acts >= 100

    async with world.run_worker() as worker:
        async with crowd.acting(world.emulator, per_second=100):
            await wait_until(goes_on, what=lambda: worker.err[-2500:])
        await world.settles()
        assert await world.quarantine() == []
        assert await world.owed() == {"first_start"}


async def test_a_full_redis_is_waited_out(world: World) -> None:
    """Live events wait, and so does a replay that PubNub slows down."""
    crowd = Crowd(world.state, seed=44)
    for number in range(500):
        world.state.add(ROOM, MESSAGE, "reaction", "👍", f"old-{number}", published=False)
    world.state.set_outage("throttle", ["actions"])
    async with world.run_worker() as worker:
        await wait_until(lambda: world.emulator.requests["actions"] > 0)
        async with crowd.acting(world.emulator):
            await world.redis.config_set("maxmemory", 1)
            try:
                await crowd.has_acted(10)
                await logs(worker, "redis_unavailable")
                world.state.set_outage(None)
            finally:
                await world.redis.config_set("maxmemory", 0)

        await world.settles()
        assert await world.quarantine() == []


async def test_a_cancelled_call_waits_for_no_answer(world: World, valkey: RedisServer) -> None:
    """Each step of a command is tried: on Python 3.11 redis-py loses a cancellation in one."""
    async with connect(valkey.url) as redis:
        for steps in range(20):
            await redis.ping()  # now it is connected
            async with world.hanging_redis():
                asking = asyncio.create_task(cast("Any", redis).set("key", steps, px=60_000))
                for _ in range(steps):
                    await asyncio.sleep(0)
                asking.cancel()
                done, _ = await asyncio.wait([asking], timeout=SOCKET_TIMEOUT_SECONDS / 2)
            assert done, f"cancelled at step {steps}, it waits for an answer"
            assert asking.cancelled()
