"""A reconcile prunes nothing on the word of an outage, a wrong origin or a mass loss."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.bench.bench import KEYS, SETTLE_SECONDS
from tests.bench.comparison import MESSAGE, ComparisonBench, answer_oddly
from tests.bench.round_trips import round_trips
from tests.histories import CHANNEL
from tests.source.scripted import SUBSCRIBE_KEY
from worker.cli.reports import reconcile_exit_code
from worker.domain.action import Identity, Origin, Removed
from worker.domain.position import Range
from worker.emulator import Emulator, Page, Window
from worker.errors import ExitCode, ForbiddenError, PubNubError
from worker.reconciliation.origin_check import NEWEST_SECONDS, OriginCheck
from worker.reconciliation.report import ReconcileOptions
from worker.source.client import Client, Keyset
from worker.store.pending_repairs import GapCause


def origin_check(comparison: ComparisonBench) -> OriginCheck:
    """Return a check whose questions to PubNub a test answers."""
    bench = comparison.bench
    return OriginCheck(cast("Any", None), comparison.entries, bench.tables, bench.clock)


async def test_a_mass_loss_waits_for_a_person(comparison: ComparisonBench) -> None:
    """Nothing is pruned and the channel is owed, until ``--force``."""
    actions = await comparison.knows(100)
    for number in range(30):
        comparison.remove(f"user{number}", actions[number])
    before = await comparison.bench.counts()

    report = await comparison.reconcile().channel(CHANNEL, Range())

    assert (report.refused, report.pruned) == (30, 0)
    assert await comparison.bench.counts() == before
    assert set(await comparison.bench.tables.pending.read(CHANNEL)) == {GapCause.UNPROVEN}

    report = await comparison.reconcile().channel(CHANNEL, Range(), ReconcileOptions(force=True))

    assert report.pruned == 30
    await comparison.expect_exact()


async def test_an_empty_list_takes_nothing_away_by_slices(comparison: ComparisonBench) -> None:
    """PubNub lists nothing of one room of two hundred. Each slice is below the floor."""
    actions = await comparison.knows(200)
    await comparison.knows(3, "hall")
    before = await comparison.bench.counts()
    slices = [Range(str(low), str(high)) for low, high in pairwise(actions[::10])]
    answer_oddly(
        comparison.bench, lambda channel, _: Page((), None) if channel == CHANNEL else None
    )

    reports = [await comparison.reconcile().channel(CHANNEL, part) for part in slices]

    assert {report.pruned for report in reports} == {0}
    assert all(report.reason.startswith("too many at once") for report in reports)
    assert await comparison.bench.counts() == before


async def test_slices_together_keep_to_the_limit(comparison: ComparisonBench) -> None:
    """A list that lacks half of a room takes away a fifth of it at most, within a day."""
    actions = await comparison.knows(200)
    for number in range(0, 200, 2):
        comparison.remove(f"user{number}", actions[number])
    slices = [Range(str(low), str(high)) for low, high in pairwise(actions[::20])]

    reports = [await comparison.reconcile().channel(CHANNEL, part) for part in slices]

    assert sum(report.pruned for report in reports) == 40
    assert [report.pruned for report in reports] == [10, 10, 10, 10, 0, 0, 0, 0, 0]
    assert await comparison.bench.tables.pruned.read(CHANNEL) == 40


async def test_a_forced_prune_counts_for_nothing(comparison: ComparisonBench) -> None:
    """A person has looked. Small losses of the same day are pruned as ever."""
    actions = await comparison.knows(100)
    for number in range(50):
        comparison.remove(f"user{number}", actions[number])
    forced = ReconcileOptions(force=True)
    assert (await comparison.reconcile().channel(CHANNEL, Range(), forced)).pruned == 50
    comparison.remove("user60", actions[60])

    assert (await comparison.reconcile().channel(CHANNEL, Range())).pruned == 1
    await comparison.expect_exact()


async def test_an_index_lost_meanwhile_does_not_lift_the_limit(comparison: ComparisonBench) -> None:
    """Its entries are there, though the channel seems to have none."""
    await comparison.knows(60)
    await comparison.knows(3, "hall")
    answer_oddly(
        comparison.bench, lambda channel, _: Page((), None) if channel == CHANNEL else None
    )

    async def lose_the_index() -> None:
        await comparison.bench.redis.delete(KEYS.messages(CHANNEL))

    def second_pass_begins() -> None:
        comparison.asking = lose_the_index

    comparison.between = second_pass_begins

    report = await comparison.reconcile().channel(CHANNEL, Range())

    assert (report.refused, report.pruned) == (60, 0)


async def test_what_a_person_forced_meanwhile_is_no_loss(comparison: ComparisonBench) -> None:
    """Another look was under way. It leaves no refusal behind that would wait for a day."""
    actions = await comparison.knows(60)
    for number, action in enumerate(actions):
        comparison.remove(f"user{number}", action)

    async def is_forced() -> None:
        comparison.asking = None
        options = ReconcileOptions(force=True)
        report = await comparison.reconcile().channel(CHANNEL, Range(), options)
        assert report.pruned == 60

    def second_pass_begins() -> None:
        comparison.between = lambda: None
        comparison.asking = is_forced

    comparison.between = second_pass_begins

    report = await comparison.reconcile().channel(CHANNEL, Range())

    assert (report.refused, report.pruned) == (0, 0)
    await comparison.expect_exact()


async def test_an_emptied_window_needs_no_other_channel(comparison: ComparisonBench) -> None:
    """The room's own list shows older actions, so its origin is known."""
    actions = await comparison.knows(10)
    comparison.remove("user9", actions[9])
    window = Range(str(actions[9]))

    report = await comparison.reconcile().channel(CHANNEL, window)

    assert (report.listed, report.pruned, report.refused) == (0, 1, 0)
    await comparison.expect_exact()


async def test_a_lonely_channel_is_not_emptied(comparison: ComparisonBench) -> None:
    """Nobody shows that PubNub knows us. The report says what to check."""
    [action] = await comparison.knows(1)
    comparison.remove("user0", action)

    report = await comparison.reconcile().channel(CHANNEL, Range())

    assert (report.pruned, report.refused) == (0, 1)
    assert "PUBNUB_ORIGIN" in report.reason


async def test_a_huge_loss_is_refused_at_once(
    comparison: ComparisonBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ``--force`` it is pruned batch by batch."""
    monkeypatch.setattr("worker.reconciliation.evidence.CANDIDATE_BATCH", 10)
    actions = await comparison.knows(100)
    for number in range(30):
        comparison.remove(f"user{number}", actions[number])

    assert (await comparison.reconcile().channel(CHANNEL, Range())).refused == 30
    assert (
        await comparison.reconcile().channel(CHANNEL, Range(), ReconcileOptions(force=True))
    ).pruned == 30
    await comparison.expect_exact()


async def test_an_unknown_origin_empties_no_tally(comparison: ComparisonBench) -> None:
    """Neither a large channel nor one small channel after the other."""
    channels = [f"small{number}" for number in range(12)]
    for channel in channels:
        await comparison.knows(2, channel)
    await comparison.knows(50)
    before = await comparison.bench.counts()
    reconcile = comparison.reconcile()

    comparison.bench.emulator.state.faults.replace({"empty": 1})
    reports = await reconcile.run([CHANNEL, *channels], Range())
    comparison.bench.emulator.state.faults.replace({})

    lost = sum(report.pruned for report in reports)
    assert lost == 0
    assert all(report.refused for report in reports)
    assert await comparison.bench.counts() == before


async def test_a_wrong_origin_empties_nothing_later(comparison: ComparisonBench) -> None:
    """Each channel is small enough for the limit.

    Neither this process nor the next one prunes any.
    """
    channels = [f"small{number}" for number in range(8)]
    for channel in channels:
        await comparison.knows(3, channel)
    before = await comparison.bench.counts()

    async with (
        Emulator(seed=9, idle_seconds=0.5) as other,
        Client(Keyset(SUBSCRIBE_KEY, "tally", origin=other.origin, tls=False)) as wrong,
    ):
        other.state.advance(1000 * SETTLE_SECONDS)
        comparison.bench.client = wrong
        for _ in range(2):
            reports = await comparison.reconcile().run(channels, Range())
            assert [(report.pruned, report.refused) for report in reports] == [(0, 3)] * 8

    assert await comparison.bench.counts() == before
    assert {*await comparison.bench.tables.pending.read_all(channels)} == {*channels}


async def test_an_emptied_channel_heals_beside_listed_ones(comparison: ComparisonBench) -> None:
    """The other channels show that PubNub knows us."""
    [action] = await comparison.knows(1, "emptied")
    await comparison.knows(3)
    comparison.remove("user0", action, "emptied")
    comparison.bench.emulator.state.advance(2 * SETTLE_SECONDS)

    assert (await comparison.reconcile().channel("emptied", Range())).pruned == 1
    await comparison.expect_exact()


async def test_an_unknown_answer_empties_no_tally(
    comparison: ComparisonBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody found among the first channels without reactions is not nobody at all."""
    monkeypatch.setattr("worker.reconciliation.origin_check.CHANNELS_LOOKED_UP", 5)
    [action] = await comparison.knows(1, "emptied")
    comparison.remove("user0", action, "emptied")
    await comparison.bench.tables.channels.add([f"quiet{number}" for number in range(10)])
    comparison.bench.emulator.state.advance(2 * SETTLE_SECONDS)

    report = await comparison.reconcile().channel("emptied", Range())

    assert (report.pruned, report.refused) == (0, 1)


async def test_all_channels_are_read_once_a_minute(comparison: ComparisonBench) -> None:
    """PubNub lists nothing, as in an outage. Then each look asks for another channel."""
    bench = comparison.bench
    check, asked = origin_check(comparison), list[str]()

    async def is_listed(channel: str) -> bool:
        asked.append(channel)
        return False

    check._reader = cast("Any", SimpleNamespace(is_listed=is_listed))
    await comparison.knows(1, "old")
    with round_trips(bench.redis) as sent:
        for number in range(10):
            assert not await check.is_known(f"room{number}")
        assert not await check.is_known("old")
    await comparison.knows(1, "new")
    bench.clock.now += NEWEST_SECONDS
    assert not await check.is_known(CHANNEL)

    assert sum("SMEMBERS" in command for command in sent) == 1
    assert asked == ["old"] * 10 + ["new", "old"]


async def test_channels_are_noted_while_others_are_asked(comparison: ComparisonBench) -> None:
    """Eight reconciles run side by side, with one check. A refused witness says nothing."""
    check = origin_check(comparison)

    async def is_listed(channel: str) -> bool:
        check.note_listed("newer")
        if channel == "forbidden":
            raise ForbiddenError("no", channels=frozenset(), groups=frozenset())
        return channel == "listed"

    check._reader = cast("Any", SimpleNamespace(is_listed=is_listed))
    for channel in ("listed", "emptied", "forbidden"):
        check.note_listed(channel)

    assert await check.is_known(CHANNEL)


async def test_dead_channels_hold_up_no_repair(comparison: ComparisonBench) -> None:
    """PubNub lists nothing of eleven channels that still hold reactions here.

    A channel that it listed lately is asked first.
    """
    dead = [f"a-dead{number:02d}" for number in range(11)]
    for channel in dead:
        for number, action in enumerate(await comparison.knows(1, channel)):
            comparison.remove(f"user{number}", action, channel)
    await comparison.knows(3)
    comparison.bench.emulator.state.advance(2 * SETTLE_SECONDS)
    reconcile = comparison.reconcile()

    await reconcile.channel(CHANNEL, Range())
    report = await reconcile.channel(dead[0], Range())

    assert (report.pruned, report.refused) == (1, 0)


async def test_a_witness_that_fails_holds_up_no_repair(comparison: ComparisonBench) -> None:
    """It was listed last, so it is asked first. Another one is listed."""
    check = origin_check(comparison)
    fails = {"failing"}

    async def is_listed(channel: str) -> bool:
        if channel in fails:
            raise PubNubError("PubNub answers 500", status=500)
        return True

    check._reader = cast("Any", SimpleNamespace(is_listed=is_listed))
    for channel in ("listed", "failing"):
        check.note_listed(channel)

    assert await check.is_known(CHANNEL)
    fails.add("listed")
    with pytest.raises(PubNubError):  # nobody knows yet: the repair is tried again soon
        await check.is_known(CHANNEL)


async def test_channels_that_changed_last_are_asked_first(comparison: ComparisonBench) -> None:
    """A new process has seen none of them. Thirty dead ones hold older reactions."""
    dead = [f"a-dead{number:02d}" for number in range(30)]
    actions = {channel: await comparison.knows(1, channel) for channel in dead}
    for channel, (action,) in actions.items():
        comparison.remove("user0", action, channel)
    await comparison.knows(3)
    comparison.bench.emulator.state.advance(2 * SETTLE_SECONDS)

    for channel in dead:  # a prune is a change, too, but leaves nothing to be listed
        report = await comparison.reconcile().channel(channel, Range())
        assert (report.pruned, report.refused) == (1, 0)


async def test_a_damaged_channel_is_no_witness(comparison: ComparisonBench) -> None:
    """Nor does it fail the others: a channel that lists something is found beside it."""
    for channel in ("damaged", "listed"):
        await comparison.knows(1, channel)
    [emptied] = await comparison.knows(1)
    comparison.remove("user0", emptied)
    comparison.bench.emulator.state.advance(2 * SETTLE_SECONDS)
    await comparison.bench.redis.set(KEYS.messages("damaged"), "not ours")

    report = await comparison.reconcile().channel(CHANNEL, Range())

    assert (report.pruned, report.refused) == (1, 0)


@pytest.mark.parametrize("kind", ["html", "server_error", "drop", "empty_object", "list"])
async def test_an_outage_prunes_nothing(comparison: ComparisonBench, kind: str) -> None:
    """The report says so, and the marks stay."""
    await comparison.knows(50)
    await comparison.bench.tables.pending.mark([CHANNEL], GapCause.OVERFLOW)
    before = await comparison.bench.counts()
    comparison.bench.emulator.state.set_outage(kind, ["actions"])
    comparison.tries = 3

    with pytest.raises(PubNubError):
        await comparison.reconcile().channel(CHANNEL, Range(), ReconcileOptions(force=True))

    assert await comparison.bench.counts() == before
    assert await comparison.bench.tables.pending.read(CHANNEL)


async def test_a_refused_channel_is_not_pruned(comparison: ComparisonBench) -> None:
    """Neither in the first pass nor in the second."""
    actions = await comparison.knows(50)
    comparison.remove("user3", actions[3])
    comparison.between = lambda: comparison.bench.emulator.state.refuse([CHANNEL])
    before = await comparison.bench.counts()

    with pytest.raises(ForbiddenError):
        await comparison.reconcile().channel(CHANNEL, Range())

    assert await comparison.bench.counts() == before


async def test_refusals_prune_nothing_that_exists(comparison: ComparisonBench) -> None:
    """A 403 ends a reconcile at any step. A later reconcile comes to its end."""
    actions = await comparison.knows(150)
    comparison.lose_removals(actions, range(0, 150, 6))
    comparison.bench.emulator.state.faults.replace({"forbidden": 0.3})
    refusals, is_refused = 0, True

    while is_refused:
        try:
            await comparison.reconcile().channel(CHANNEL, Range())
            is_refused = False
        except ForbiddenError:
            refusals += 1
            await comparison.expect_all_listed()

    assert refusals > 1
    await comparison.expect_exact()


async def test_empty_answers_prune_nothing_that_exists(comparison: ComparisonBench) -> None:
    """Every second answer is empty. What is not proven stays owed."""
    actions = await comparison.knows(900)
    gone = range(0, 900, 6)
    comparison.lose_removals(actions, gone)
    comparison.bench.emulator.state.faults.replace({"empty": 0.5})

    report = await comparison.reconcile().channel(CHANNEL, Range())

    assert report.pruned <= len(gone)
    await comparison.expect_all_listed()
    assert report.pruned == len(gone) or await comparison.bench.tables.pending.read(CHANNEL)
    comparison.bench.emulator.state.faults.replace({})
    await comparison.reconcile().channel(CHANNEL, Range())
    await comparison.expect_exact()


async def test_an_empty_page_with_more_is_no_end(comparison: ComparisonBench) -> None:
    """PubNub may stop early before it finds anything. Such a page proves nothing."""
    await comparison.knows(3)
    looks = ["blank"]

    def odd(_: str, window: Window) -> Page | None:
        if looks[-1] == "begins":
            looks.append("goes on")
            assert window.start
            return Page((), more=window.start - 10)
        return Page(()) if looks[-1] == "blank" else None

    answer_oddly(comparison.bench, odd)
    comparison.between = lambda: looks.append("begins")

    report = await comparison.reconcile().channel(CHANNEL, Range())

    assert looks[-1] == "goes on"
    assert (report.pruned, report.unproven) == (0, 0)
    await comparison.expect_exact()


async def test_removals_during_a_pass_are_no_losses(comparison: ComparisonBench) -> None:
    """Their entries are unseen, but the second pass finds them gone from Redis, too."""
    actions = await comparison.knows(60)

    async def removals_are_heard() -> None:
        comparison.asking = None
        for number in range(25):
            comparison.remove(f"user{number}", actions[number])
        gone = [
            Removed(
                Identity(CHANNEL, MESSAGE, "reaction", "👍", f"user{number}"),
                str(at),
                str(at + 10**7),
            )
            for number, at in enumerate(actions[:25])
        ]
        await comparison.bench.store.apply_all([(CHANNEL, gone)], Origin.LIVE)

    comparison.asking = removals_are_heard

    report = await comparison.reconcile().channel(CHANNEL, Range())

    assert report.entries == 60
    assert (report.refused, report.unproven, report.pruned) == (0, 0, 0)
    assert reconcile_exit_code([report]) is ExitCode.DONE
    assert await comparison.bench.tables.pending.read(CHANNEL) == {}
    await comparison.expect_exact()
