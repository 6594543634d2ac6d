"""The list of names changes: kept names miss nothing, new names are owed their past."""

import asyncio
from itertools import count

import pytest

from tests.bench.bench import KEYS, Bench, claimed_recovery
from tests.bench.subscriptions import MESSAGE, has_begun, running_subscriptions
from tests.bench.waiting import Moments, wait_until_exact
from tests.cursors import save_cursor
from tests.waiting import wait_until
from worker.domain.position import Cursor
from worker.live.subscriptions import Subscriptions
from worker.source.names import Names
from worker.store.connection import recovery_client
from worker.store.ownership import FORGOTTEN_SECONDS
from worker.store.rollback_detector import RollbackDetector


def followed(subscriptions: Subscriptions) -> list[str]:
    """Return the names of each subscription, as one word."""
    return sorted("".join(subscription.names.all) for subscription in subscriptions.current)


async def follows(subscriptions: Subscriptions, *alternatives: list[str]) -> None:
    """Wait until the subscriptions have these names, in one of these ways."""
    await wait_until(lambda: followed(subscriptions) in alternatives)


async def test_unchanged_subscriptions_keep_running(bench: Bench) -> None:
    """Only subscriptions whose names change are replaced."""
    async with running_subscriptions(bench, "abcd") as subscriptions:
        (ad,) = [
            subscription
            for subscription in subscriptions.current
            if subscription.names.all == ("a", "d")
        ]
        assert await subscriptions.change(Names.of("abd")) == (0, 1)
        await follows(subscriptions, ["ad", "b"])
        await has_begun(bench, subscriptions)
        assert ad in subscriptions.current


async def test_only_a_new_channel_is_owed(bench: Bench) -> None:
    """It joins a subscription that has room. The other names resume at their cursor."""
    async with running_subscriptions(bench, "abc") as subscriptions:
        await bench.redis.delete(*await bench.redis.keys("tally:*:owed"))
        await subscriptions.change(Names.of("abcde"))
        await follows(subscriptions, ["ab", "dc", "e"])
        await has_begun(bench, subscriptions)

        owed = await bench.tables.pending.read_all("abcde")
        assert {channel: set(causes) for channel, causes in owed.items()} == {
            "d": {"new_channel"},
            "e": {"first_start"},
        }


async def test_events_during_a_change_are_counted(bench: Bench) -> None:
    """The list changes again and again under a steady load."""
    users = count()

    def react() -> None:
        for channel in "abcd":
            bench.emulator.state.add(channel, MESSAGE, "reaction", "👍", f"user-{next(users)}")

    async with running_subscriptions(bench, "abcd") as subscriptions:
        await bench.redis.delete(*await bench.redis.keys("tally:*:owed"))
        for channels in ["abcde", "abcd", "abcdef", "abcdg", "abcd"] * 2:
            changing = asyncio.create_task(subscriptions.change(Names.of(channels)))
            # Fewer than one answer holds, even if no poll reads them meanwhile.
            for _ in range(40):
                react()
                await asyncio.sleep(0)
            await changing
            react()
            await wait_until_exact(bench)

        assert await bench.tables.pending.read_all("abcd") == {}


@pytest.mark.parametrize("size", [2, 3])
async def test_a_list_may_change_during_a_start(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Each step of a start is tried. A name that joins is owed every time."""
    moments, is_too_late = Moments(bench, monkeypatch), False
    for number in count(-1):
        await bench.redis.flushall()
        async with running_subscriptions(bench, "ab", size, begun=False) as subscriptions:
            has_come = asyncio.Event()
            moments.await_one(number, has_come.set)
            await asyncio.sleep(0)  # all tasks exist; none has made a step
            while number >= 0 and not (has_come.is_set() or is_too_late):
                await asyncio.sleep(0)
                is_too_late = bench.emulator.waiting == 1 and all(
                    subscription.resume_point for subscription in subscriptions.current
                )
            await subscriptions.change(Names.of("abc"))
            await subscriptions.change(Names.of("ac"))
            assert await subscriptions.change(Names.of("ac")) == (0, 0)
            await follows(subscriptions, ["ac"], ["a", "c"])
            await has_begun(bench, subscriptions)
        assert (await bench.tables.pending.read_all("c"))["c"]
        if is_too_late:
            break
    assert number > 10


async def test_a_stop_follows_no_new_name(bench: Bench) -> None:
    """A list that changes during a stop changes nothing."""
    async with running_subscriptions(bench, "ab") as subscriptions:
        subscriptions.stop()
        await subscriptions.change(Names.of("abcdef"))

    assert subscriptions.current == []


async def test_a_change_after_a_rollback_marks_every_name(bench: Bench) -> None:
    """A successor does not resume at a cursor that Redis has forgotten."""
    rollback_detector = RollbackDetector()
    async with recovery_client(bench.redis) as whoever_answers:
        recovery = await claimed_recovery(rollback_detector, whoever_answers, ["a", "b", "c"])
        bench.lay_out(rollback_detector, recovery)
        async with running_subscriptions(bench, "abc", size=3) as subscriptions:
            await wait_until(lambda: bench.emulator.waiting == 1)
            await bench.redis.delete(
                KEYS.cursor(subscriptions.current[0].id), *map(KEYS.owed, "abc")
            )
            await subscriptions.change(Names.of("ab"))
            await follows(subscriptions, ["ab"])
            await has_begun(bench, subscriptions)

            owed = await bench.tables.pending.read_all("abc")
            assert {
                channel: "redis_went_back" in causes for channel, causes in owed.items()
            } == dict.fromkeys("abc", True)
            assert (rollback_detector.generation, rollback_detector.is_suspect) == (1, False)


@pytest.mark.parametrize("wanted", ["", "ci"])
async def test_all_names_may_be_replaced(bench: Bench, wanted: str) -> None:
    """Other names, or none, follow."""
    async with running_subscriptions(bench, "ab") as subscriptions:
        await subscriptions.change(Names.of(wanted))
        await wait_until(lambda: followed(subscriptions) == ([wanted] if wanted else []))


async def test_a_returning_name_is_registered_again(bench: Bench) -> None:
    """Its cursor of long ago was not registered any more. The first new cursor is."""
    async with running_subscriptions(bench, "ab") as subscriptions:
        (before,) = subscriptions.current
    await save_cursor(
        bench.tables.cursors,
        before.id,
        Cursor("17600000000000000", 1),
        age=lambda: 2 * FORGOTTEN_SECONDS,
    )
    async with running_subscriptions(bench, "ab", begun=False) as subscriptions:
        await wait_until(lambda: bench.emulator.waiting == 1)
        assert await bench.tables.cursors.followed() == []
        bench.emulator.state.add("a", MESSAGE, "reaction", "👍", "ana")
        await wait_until(lambda: subscriptions.current[0].has_begun)

    assert [names for names, _ in await bench.tables.cursors.followed()] == [("a", "b")]
