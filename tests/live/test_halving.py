"""A subscription whose answers stay full is halved, and no event is missed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from unittest.mock import ANY

from redis.asyncio import Redis

from tests.bench.bench import KEYS, Bench
from tests.bench.subscriptions import (
    MESSAGE,
    ROOM,
    SubscriptionRun,
    react,
    running_subscription,
    wait_until_asked_again,
)
from tests.bench.waiting import LONGEST_SECONDS, wait_until_true
from tests.cursors import save_cursor
from tests.source.scripted import SUBSCRIBE_KEY
from tests.waiting import wait_until
from worker.domain.position import Cursor
from worker.errors import ExitCode
from worker.live.assignment import Assignment
from worker.live.subscription_cursor import ResumePoint
from worker.live.subscriptions import Subscriptions
from worker.service import parts, worker
from worker.service.lifecycle import Service
from worker.settings import Settings
from worker.source.names import Names
from worker.store.cursors import digest

FOUR = Names.of(("attic", "hall", "room", "yard"))


async def flood(bench: Bench, names: Names, number: int, per_channel: int = 25) -> None:
    """Let so much happen at once in each channel, and wait until it is read."""
    before = bench.emulator.requests["subscribe"]
    for channel in names.channels:
        react(bench, per_channel, channel, start=number * per_channel)
    await wait_until_asked_again(bench, before)


async def test_full_answers_halve_a_subscription(bench: Bench) -> None:
    """Three in a row do. Its halves begin at its cursor, and all channels are owed."""
    async with running_subscription(bench, FOUR) as run:
        for number in range(2):
            await flood(bench, FOUR, number)
            await run.settled()
        assert not run.subscription.successors
        await flood(bench, FOUR, 2)
        await wait_until(lambda: bool(run.subscription.successors))

    assert run.subscription.successors == (
        Assignment(Names.of(("room", "yard"))),
        Assignment(Names.of(("attic", "hall"))),
    )
    assert run.subscription.resume_point
    assert run.subscription.resume_point.cursor == await run.cursor()
    assert await bench.counts() == bench.emulator.truth()
    debts = await bench.tables.pending.read_all(FOUR.channels)
    assert all("overflow" in debts[channel] for channel in FOUR.channels)


async def test_a_burst_halves_no_subscription(bench: Bench) -> None:
    """The full answers are not in a row."""
    async with running_subscription(bench, FOUR) as run:
        for number in range(2):
            await flood(bench, FOUR, number)
            await run.settled()
        react(bench, 1, "cellar")
        react(bench, 1, "room", start=1000)
        await wait_until_true(lambda: count_of(bench, "room"), 51)
        for number in range(2, 4):
            await flood(bench, FOUR, number)
            await wait_until_true(lambda: count_of(bench, "yard"), 25 * number + 25)

        assert run.subscription.successors is None


async def count_of(bench: Bench, channel: str) -> int:
    """Return how many users have reacted, according to Redis."""
    return (await bench.reader.get(channel, MESSAGE)).get("reaction", {}).get("👍", 0)


async def test_a_single_name_is_not_halved(bench: Bench) -> None:
    """It is followed further, and owed."""
    async with running_subscription(bench) as run:
        for number in range(5):
            await flood(bench, ROOM, number, per_channel=100)
            await run.settled()

        assert run.subscription.successors is None
        assert "overflow" in await run.owed("room")


@asynccontextmanager
async def serving(
    bench: Bench, *assignments: Assignment[ResumePoint], size: int = 50
) -> AsyncIterator[Subscriptions]:
    """Follow subscriptions as a worker does, with their successors, until the block ends."""
    all_of_them = Subscriptions(
        lambda assignment: SubscriptionRun(bench, assignment).subscription, assignments, size
    )
    service = Service(all_of_them, [], LONGEST_SECONDS)
    running = asyncio.create_task(service.serve())
    try:
        await wait_until(lambda: bench.emulator.waiting == len(assignments))
        yield all_of_them
    finally:
        service.stop("the test ends")
        assert await asyncio.wait_for(running, LONGEST_SECONDS) is ExitCode.DONE


async def resumed(bench: Bench, names: Names, size: int = 50) -> list[Assignment[ResumePoint]]:
    """Return the assignments of a worker that starts now with these names."""
    settings = Settings.model_validate(
        {
            "PUBNUB_SUBSCRIBE_KEY": SUBSCRIBE_KEY,
            "PUBNUB_ORIGIN": bench.emulator.origin,
            "PUBNUB_TLS": False,
            "REDIS_URL": url_of(bench.redis),
        }
    )
    async with parts.open_parts(settings) as opened:
        return await worker.resume(opened, names, size)


def url_of(redis: Redis) -> str:
    """Return the address of a client's Redis."""
    kwargs = redis.connection_pool.connection_kwargs
    return f"redis://{kwargs['host']}:{kwargs['port']}"


async def test_halves_miss_nothing(bench: Bench) -> None:
    """Neither at the change, nor between two workers."""
    assert await resumed(bench, FOUR) == [Assignment(FOUR)]
    async with serving(bench, Assignment(FOUR)):
        for number in range(3):
            await flood(bench, FOUR, number)
        await wait_until(lambda: bench.emulator.waiting == 2)
        await flood(bench, FOUR, 3)
        await wait_until_true(bench.counts, bench.emulator.truth())
    for channel in FOUR.channels:
        react(bench, 25, channel, start=100)

    halves = await resumed(bench, FOUR)

    assert halves == list(map(Assignment, FOUR.halves()))
    await bench.redis.delete(*map(KEYS.owed, FOUR.channels))
    async with serving(bench, *halves):
        await wait_until_true(bench.counts, bench.emulator.truth())
        assert await bench.tables.pending.read_all(FOUR.channels) == {}


async def test_names_resume_at_their_newest_cursor(bench: Bench) -> None:
    """It may be the cursor of the whole list, of halves, or of parts of halves."""
    (first, second), cursor = FOUR.halves(), Cursor("17600000000000000", 1)

    async def save(names: Names, age_seconds: int = 0) -> None:
        await bench.tables.cursors.register(digest(names.all), names.all)
        await save_cursor(bench.tables.cursors, digest(names.all), cursor, age=lambda: age_seconds)

    async def left_now() -> list[Names]:
        return [assignment.names for assignment in await resumed(bench, FOUR)]

    await save(first, 900)
    await save(second, 910)
    assert await left_now() == [first, second]
    await save(FOUR, 60)
    assert await left_now() == [FOUR]  # whole again
    await save(first, 30)
    assert await resumed(bench, FOUR) == [
        Assignment(first),
        Assignment(second, ANY),
    ]  # the second half resumes where the whole was
    await save(second)
    assert await resumed(bench, FOUR) == [Assignment(second), Assignment(first)]
    for quarter in second.halves():
        await save(quarter)  # as new as the half, which was halved just before the kill
    assert await left_now() == [*second.halves(), first]
    assert await resumed(bench, ROOM) == [Assignment(ROOM, ANY)]  # the other names are gone


async def test_an_unregistered_cursor_is_found(bench: Bench) -> None:
    """It is the cursor of the very same names."""
    await save_cursor(bench.tables.cursors, digest(FOUR.all), Cursor("17600000000000000", 1))

    async with serving(bench, *await resumed(bench, FOUR)) as run:
        assert run.current[0].resume_point
        assert run.current[0].resume_point.cursor == Cursor("17600000000000000", 1)
