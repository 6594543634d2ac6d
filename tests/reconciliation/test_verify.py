"""Verify tells what differs, in two looks, and writes nothing."""

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
    """A bench to verify on."""
    return Comparing(bench)


async def everything(it: Comparing) -> dict[str, Any]:
    """Return all that Redis holds."""
    redis = cast("Any", it.bench.redis)
    return {key: await redis.dump(key) async for key in redis.scan_iter()}


async def test_exact_tallies_are_said_to_be_exact(it: Comparing) -> None:
    """Several channels, more than a page."""
    await it.knows(130)
    await it.knows(3, "other")

    found = await it.verify().run([CHANNEL, "other", "never-seen"])

    assert (found.is_exact, found.entries, found.unproven) == (True, 133, 0)


async def test_each_difference_is_told_by_message(it: Comparing) -> None:
    """Who is counted and not listed, who is listed and not counted; nothing is written."""
    actions = await it.knows(130)
    for number in (0, 60, 129):
        it.remove(f"user{number}", actions[number])
    it.add("unheard")
    it.add("unheard", "🎉")
    it.bench.emulator.state.advance(2 * SETTLE_SECONDS)
    before = await everything(it)

    found = await it.verify().run([CHANNEL])

    assert found.discrepancies == [
        Discrepancy(CHANNEL, MESSAGE, "reaction", "🎉", missing=1, surplus=0),
        Discrepancy(CHANNEL, MESSAGE, "reaction", "👍", missing=1, surplus=3),
    ]
    assert not found.is_exact
    assert await everything(it) == before


async def test_what_the_second_look_mends_is_no_difference(it: Comparing) -> None:
    """A list that lagged behind, and an event that was on its way: live load makes nothing flap."""
    actions = await it.knows(50)
    it.remove("user7", actions[7])
    it.add("on-its-way")
    it.bench.emulator.state.advance(2 * SETTLE_SECONDS)

    async def events_arrive() -> None:
        gone = Identity(CHANNEL, MESSAGE, "reaction", "👍", "user7")
        await it.bench.store.apply(CHANNEL, [Pruned(gone, str(actions[7]))], Origin.LIVE)
        await it.applies_unheard()

    it.meanwhile = events_arrive

    assert (await it.verify().run([CHANNEL])).is_exact


async def test_a_list_read_by_half_is_not_exact(it: Comparing) -> None:
    """Nothing differs where it could be read, and nobody can tell of the rest."""
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


async def test_what_is_older_than_the_retention_is_no_difference(it: Comparing) -> None:
    """PubNub lists it for ever, and nothing counts it any more."""
    it.retention_seconds = 86400
    it.bench.lay_out(ttls=Ttls(retention_seconds=86400))
    young = shift(await it.bench.client.time(), -3600 * TICKS_PER_SECOND)
    it.bench.emulator.state.add(CHANNEL, young, "reaction", "👍", "ana")
    await it.knows(3)

    found = await it.verify().run([CHANNEL])

    assert set(await it.bench.counts()) == {CHANNEL}
    assert (found.is_exact, found.entries) == (True, 1)


async def test_two_actions_of_one_user_are_one_user(it: Comparing) -> None:
    """Both are listed, one is live: the count is right."""
    it.bench.emulator.state.faults.replace({"twin": 1})
    it.bench.emulator.state.add(CHANNEL, MESSAGE, "r", "x", "u")
    it.bench.emulator.state.faults.replace({})
    await it.knows(3)

    assert (await it.verify().run([CHANNEL])).is_exact


async def test_what_is_wrong_inside_redis_is_told(it: Comparing) -> None:
    """A count nobody stands behind, in a channel that otherwise agrees."""
    await it.knows(3)
    await cast("Any", it.bench.redis).hincrby(KEYS.counts(CHANNEL, MESSAGE), "reaction:👍", 2)

    found = await it.verify().run([CHANNEL])

    assert [flaw.problem for flaw in found.flaws] == ["the count is 5, though 3 are live"]
    assert not found.is_exact


async def test_a_sample_looks_at_a_part(it: Comparing) -> None:
    """Fewer entries, and whatever differs there is found."""
    first = int(MESSAGE)
    for number in range(400):
        it.add(f"user{number}", at=first + number * 10**11)
    await it.catches_up()

    found = await it.verify(sample=0.2).run([CHANNEL])

    assert found.is_exact
    assert 0 < found.entries < 200
