"""A verify reports differences, in two passes, and writes nothing."""

from typing import Any, cast

import pytest

from tests.bench.bench import KEYS, SETTLE_SECONDS, Bench
from tests.bench.comparing import MESSAGE, Comparing, answer_oddly
from tests.histories import CHANNEL
from worker.domain.action import Identity, Origin, Pruned
from worker.domain.position import TICKS_PER_SECOND, shift
from worker.emulator import Page
from worker.errors import ExitCode
from worker.reconciliation.verify import Discrepancy
from worker.store.store import Ttls


@pytest.fixture
def it(bench: Bench) -> Comparing:
    """Yield a bench to verify on."""
    return Comparing(bench)


def discrepancy(value: str, *, missing: int, surplus: int) -> Discrepancy:
    """Return a discrepancy of the message."""
    return Discrepancy(
        channel=CHANNEL,
        message_timetoken=MESSAGE,
        type="reaction",
        value=value,
        missing=missing,
        surplus=surplus,
    )


async def everything(it: Comparing) -> dict[str, Any]:
    """Return all that Redis holds."""
    redis = cast("Any", it.bench.redis)
    return {key: await redis.dump(key) async for key in redis.scan_iter()}


async def test_exact_tallies_have_no_difference(it: Comparing) -> None:
    """There are several channels, and more than a page."""
    await it.knows(130)
    await it.knows(3, "other")

    found = await it.verify().run([CHANNEL, "other", "never-seen"])

    assert (found.is_exact, found.entries, found.unproven) == (True, 133, 0)


async def test_each_difference_is_reported_by_message(it: Comparing) -> None:
    """Counted users are not listed, and listed users are not counted."""
    actions = await it.knows(130)
    for number in (0, 60, 129):
        it.remove(f"user{number}", actions[number])
    it.add("unheard")
    it.add("unheard", "🎉")
    it.bench.emulator.state.advance(2 * SETTLE_SECONDS)
    before = await everything(it)

    found = await it.verify().run([CHANNEL])

    assert found.discrepancies == [
        discrepancy("🎉", missing=1, surplus=0),
        discrepancy("👍", missing=1, surplus=3),
    ]
    assert not found.is_exact
    assert await everything(it) == before


async def test_a_passing_difference_is_not_reported(it: Comparing) -> None:
    """A list lagged behind, or an event was on its way."""
    actions = await it.knows(50)
    it.remove("user7", actions[7])
    it.add("on-its-way")
    it.bench.emulator.state.advance(2 * SETTLE_SECONDS)

    async def events_arrive() -> None:
        gone = Identity(CHANNEL, MESSAGE, "reaction", "👍", "user7")
        await it.bench.store.apply_all([(CHANNEL, [Pruned(gone, str(actions[7]))])], Origin.LIVE)
        await it.applies_unheard()

    it.meanwhile = events_arrive

    assert (await it.verify().run([CHANNEL])).is_exact


async def test_a_list_read_in_part_is_not_exact(it: Comparing) -> None:
    """Nothing differs in the part that was read."""
    actions = await it.knows(250)
    for number in range(90):
        it.remove(f"user{number}", actions[number])
    it.bench.emulator.state.advance(2 * SETTLE_SECONDS)
    answer_oddly(
        it.bench,
        lambda _, window: Page(()) if window.start and window.start < actions[140] else None,
    )

    found = await it.verify().run([CHANNEL])

    assert (found.discrepancies, found.flaws) == ([], [])
    assert found.unproven
    assert not found.is_exact
    assert found.exit_code is ExitCode.FAILED


async def test_an_expired_message_is_no_difference(it: Comparing) -> None:
    """PubNub lists it for ever, but it is not counted any more."""
    it.retention_seconds = 86400
    it.bench.lay_out(ttls=Ttls(retention_seconds=86400))
    young = shift(await it.bench.client.time(), -3600 * TICKS_PER_SECOND)
    it.bench.emulator.state.add(CHANNEL, young, "reaction", "👍", "ana")
    await it.knows(3)

    found = await it.verify().run([CHANNEL])

    assert set(await it.bench.counts()) == {CHANNEL}
    assert (found.is_exact, found.entries) == (True, 1)


async def test_two_actions_of_one_user_count_once(it: Comparing) -> None:
    """Both are listed, and one is live."""
    it.bench.emulator.state.faults.replace({"twin": 1})
    it.bench.emulator.state.add(CHANNEL, MESSAGE, "r", "x", "u")
    it.bench.emulator.state.faults.replace({})
    await it.knows(3)

    assert (await it.verify().run([CHANNEL])).is_exact


async def test_an_inconsistent_redis_is_reported(it: Comparing) -> None:
    """A count has no entries. The channel agrees with PubNub otherwise."""
    await it.knows(3)
    await cast("Any", it.bench.redis).hincrby(KEYS.counts(CHANNEL, MESSAGE), "reaction:👍", 2)

    found = await it.verify().run([CHANNEL])

    assert [flaw.problem for flaw in found.flaws] == ["the count is 5, though 3 are live"]
    assert not found.is_exact


async def test_a_sample_compares_a_part(it: Comparing) -> None:
    """Fewer entries are read. Differences among them are found."""
    first = int(MESSAGE)
    for number in range(400):
        it.add(f"user{number}", at=first + number * 10**11)
    await it.catches_up()

    found = await it.verify(sample=0.2).run([CHANNEL])

    assert found.is_exact
    assert 0 < found.entries < 200
