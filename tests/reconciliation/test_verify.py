"""A verify reports differences, in two passes, and writes nothing."""

from typing import Any, cast

from tests.bench.bench import KEYS, SETTLE_SECONDS
from tests.bench.comparison import MESSAGE, ComparisonBench, answer_oddly
from tests.histories import CHANNEL
from worker.domain.action import Identity, Origin, Pruned
from worker.domain.position import TICKS_PER_SECOND, shift
from worker.emulator import Page
from worker.errors import ExitCode
from worker.reconciliation.verify import Discrepancy
from worker.store.store import Ttls


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


async def everything(comparison: ComparisonBench) -> dict[str, Any]:
    """Return all that Redis holds."""
    redis = cast("Any", comparison.bench.redis)
    return {key: await redis.dump(key) async for key in redis.scan_iter()}


async def test_exact_tallies_have_no_difference(comparison: ComparisonBench) -> None:
    """There are several channels, and more than a page."""
    await comparison.knows(130)
    await comparison.knows(3, "other")

    report = await comparison.verify().run([CHANNEL, "other", "never-seen"])

    assert (report.is_exact, report.entries, report.unproven) == (True, 133, 0)


async def test_each_difference_is_reported_by_message(comparison: ComparisonBench) -> None:
    """Counted users are not listed, and listed users are not counted."""
    actions = await comparison.knows(130)
    for number in (0, 60, 129):
        comparison.remove(f"user{number}", actions[number])
    comparison.add("unheard")
    comparison.add("unheard", "🎉")
    comparison.bench.emulator.state.advance(2 * SETTLE_SECONDS)
    before = await everything(comparison)

    report = await comparison.verify().run([CHANNEL])

    assert report.discrepancies == [
        discrepancy("🎉", missing=1, surplus=0),
        discrepancy("👍", missing=1, surplus=3),
    ]
    assert not report.is_exact
    assert await everything(comparison) == before


async def test_a_passing_difference_is_not_reported(comparison: ComparisonBench) -> None:
    """A list lagged behind, or an event was on its way."""
    actions = await comparison.knows(50)
    comparison.remove("user7", actions[7])
    comparison.add("on-its-way")
    comparison.bench.emulator.state.advance(2 * SETTLE_SECONDS)

    async def events_arrive() -> None:
        gone = Identity(CHANNEL, MESSAGE, "reaction", "👍", "user7")
        await comparison.bench.store.apply_all(
            [(CHANNEL, [Pruned(gone, str(actions[7]))])], Origin.LIVE
        )
        await comparison.applies_everything()

    comparison.meanwhile = events_arrive

    assert (await comparison.verify().run([CHANNEL])).is_exact


async def test_a_list_read_in_part_is_not_exact(comparison: ComparisonBench) -> None:
    """Nothing differs in the part that was read."""
    actions = await comparison.knows(250)
    for number in range(90):
        comparison.remove(f"user{number}", actions[number])
    comparison.bench.emulator.state.advance(2 * SETTLE_SECONDS)
    answer_oddly(
        comparison.bench,
        lambda _, window: Page(()) if window.start and window.start < actions[140] else None,
    )

    report = await comparison.verify().run([CHANNEL])

    assert (report.discrepancies, report.flaws) == ([], [])
    assert report.unproven
    assert not report.is_exact
    assert report.exit_code is ExitCode.FAILED


async def test_an_expired_message_is_no_difference(comparison: ComparisonBench) -> None:
    """PubNub lists it for ever, but it is not counted any more."""
    comparison.retention_seconds = 86400
    comparison.bench.lay_out(ttls=Ttls(retention_seconds=86400))
    young = shift(await comparison.bench.client.time(), -3600 * TICKS_PER_SECOND)
    comparison.bench.emulator.state.add(CHANNEL, young, "reaction", "👍", "ana")
    await comparison.knows(3)

    report = await comparison.verify().run([CHANNEL])

    assert set(await comparison.bench.counts()) == {CHANNEL}
    assert (report.is_exact, report.entries) == (True, 1)


async def test_two_actions_of_one_user_count_once(comparison: ComparisonBench) -> None:
    """Both are listed, and one is live."""
    comparison.bench.emulator.state.faults.replace({"twin": 1})
    comparison.bench.emulator.state.add(CHANNEL, MESSAGE, "r", "x", "u")
    comparison.bench.emulator.state.faults.replace({})
    await comparison.knows(3)

    assert (await comparison.verify().run([CHANNEL])).is_exact


async def test_an_inconsistent_redis_is_reported(comparison: ComparisonBench) -> None:
    """A count has no entries. The channel agrees with PubNub otherwise."""
    await comparison.knows(3)
    await cast("Any", comparison.bench.redis).hincrby(
        KEYS.counts(CHANNEL, MESSAGE), "reaction:👍", 2
    )

    report = await comparison.verify().run([CHANNEL])

    assert [flaw.problem for flaw in report.flaws] == ["the count is 5, though 3 are live"]
    assert not report.is_exact


async def test_a_sample_compares_a_part(comparison: ComparisonBench) -> None:
    """Fewer entries are read. Differences among them are found."""
    first = int(MESSAGE)
    for number in range(400):
        comparison.add(f"user{number}", at=first + number * 10**11)
    await comparison.catches_up()

    report = await comparison.verify(sample=0.2).run([CHANNEL])

    assert report.is_exact
    assert 0 < report.entries < 200
