"""A reconcile makes tallies equal to PubNub's list, and prunes only what is proven gone."""

import pytest

from tests.bench.bench import KEYS, SETTLE_SECONDS
from tests.bench.comparison import MESSAGE, ComparisonBench
from tests.histories import CHANNEL
from worker.domain.action import Added, Identity, Origin, Removed
from worker.domain.position import TICKS_PER_SECOND, Range, shift
from worker.domain.reconciliation import Limit
from worker.errors import ExitCode
from worker.reconciliation.report import ReconcileOptions
from worker.store.apply_script import Ttls
from worker.store.pending_repairs import GapCause


async def test_missed_events_are_made_good(comparison: ComparisonBench) -> None:
    """Both additions and removals were missed."""
    actions = await comparison.knows(60)
    for number in (0, 7, 31, 59):
        comparison.remove(f"user{number}", actions[number])
    comparison.add("late-comer")
    comparison.bench.emulator.state.advance(2 * SETTLE_SECONDS)

    report = await comparison.reconcile().channel(CHANNEL, Range())

    assert (report.added, report.pruned, report.unproven, report.refused) == (1, 4, 0, 0)
    await comparison.expect_exact()


async def test_agreement_costs_one_pass(comparison: ComparisonBench) -> None:
    """A short channel takes two requests: its page, and the end."""
    await comparison.knows(3)
    comparison.requests = 0

    report = await comparison.reconcile().channel(CHANNEL, Range())

    assert (report.entries, report.pruned, report.added) == (3, 0, 0)
    assert report.requests == comparison.requests <= 3


@pytest.mark.parametrize("gone", [{0}, {1}, {2}, {0, 1, 2}])
async def test_a_small_channel_heals(comparison: ComparisonBench, gone: set[int]) -> None:
    """Its losses are below the floor of the limit.

    The oldest and the newest have nothing on one side, so two passes decide.
    """
    actions = await comparison.knows(3)
    await comparison.knows(1, "hall")  # so that the origin is known, if nothing is left
    comparison.lose_removals(actions, gone)

    report = await comparison.reconcile().channel(CHANNEL, Range())

    assert (report.pruned, report.unproven) == (len(gone), 0)
    await comparison.expect_exact()


async def test_a_young_action_is_left_alone(comparison: ComparisonBench) -> None:
    """Lists lag behind, so it may exist although it is not listed."""
    await comparison.knows(3)
    young = Identity(CHANNEL, MESSAGE, "reaction", "👍", "young")
    now = await comparison.bench.client.time()
    await comparison.bench.store.apply_all([(CHANNEL, [Added(young, now, now)])], Origin.LIVE)

    report = await comparison.reconcile().channel(CHANNEL, Range())

    assert (report.entries, report.pruned) == (3, 0)
    assert (await comparison.bench.reader.get(CHANNEL, MESSAGE))["reaction"]["👍"] == 4


async def test_an_action_of_the_second_pass_is_kept(comparison: ComparisonBench) -> None:
    """It was stored late, with a timetoken of the past."""
    actions = await comparison.knows(3)
    missing = Identity(CHANNEL, MESSAGE, "reaction", "👍", "slow")
    stamped = str(actions[1] + 1)
    await comparison.bench.store.apply_all(
        [(CHANNEL, [Added(missing, stamped, stamped)])], Origin.LIVE
    )
    comparison.between = lambda: void(comparison.add("slow", at=int(stamped)))

    report = await comparison.reconcile().channel(CHANNEL, Range())

    assert (report.pruned, report.unproven) == (0, 0)
    await comparison.expect_exact()


async def test_a_removed_witness_is_replaced(comparison: ComparisonBench) -> None:
    """The second pass begins further up."""
    actions = await comparison.knows(330)
    comparison.lose_removals(actions, [150])

    def lose_witnesses() -> None:
        for number in range(151, 300):
            comparison.remove(f"user{number}", actions[number])

    comparison.between = lose_witnesses

    report = await comparison.reconcile().channel(CHANNEL, Range())

    assert (report.pruned, report.unproven) == (1, 0)


async def test_a_past_range_has_outer_witnesses(comparison: ComparisonBench) -> None:
    """The newest action of the range has its witness behind the end of the range."""
    actions = await comparison.knows(500)
    since, until = str(actions[100]), str(actions[201])
    for number in (100, 150, 200):
        comparison.remove(f"user{number}", actions[number])

    report = await comparison.reconcile().channel(CHANNEL, Range(since, until))

    assert (report.entries, report.pruned, report.unproven) == (101, 3, 0)
    await comparison.expect_exact()


async def test_the_older_of_two_actions_is_restored(comparison: ComparisonBench) -> None:
    """The newer one was removed, and its tombstone bars the older one."""
    comparison.bench.emulator.state.faults.replace({"twin": 1})
    older, newer = (
        action.timetoken
        for action in comparison.bench.emulator.state.add(CHANNEL, MESSAGE, "r", "x", "u").actions
    )
    comparison.bench.emulator.state.faults.replace({})
    identity = Identity(CHANNEL, MESSAGE, "r", "x", "u")
    events = [Added(identity, str(older), str(older)), Added(identity, str(newer), str(newer))]
    await comparison.bench.store.apply_all(
        [(CHANNEL, [*events, Removed(identity, str(newer), str(newer))])], Origin.LIVE
    )
    comparison.bench.emulator.state.remove(CHANNEL, MESSAGE, newer, "u")
    comparison.bench.emulator.state.advance(2 * SETTLE_SECONDS)
    await comparison.bench.tables.channels.add([CHANNEL])

    report = await comparison.reconcile().channel(CHANNEL, Range())

    assert report.restored == 1
    await comparison.expect_exact()
    # Its removal may still be on its way.
    assert await comparison.bench.tables.pending.read(CHANNEL)


async def test_a_prune_uncovers_an_older_action(comparison: ComparisonBench) -> None:
    """The newer of two actions was removed, and its event was lost."""
    comparison.bench.emulator.state.faults.replace({"twin": 1})
    change = comparison.bench.emulator.state.add(CHANNEL, MESSAGE, "r", "x", "u")
    comparison.bench.emulator.state.faults.replace({})
    await comparison.knows(3)
    comparison.bench.emulator.state.remove(CHANNEL, MESSAGE, change.actions[-1].timetoken, "u")
    comparison.bench.emulator.state.advance(2 * SETTLE_SECONDS)

    report = await comparison.reconcile().channel(CHANNEL, Range())

    assert (report.pruned, report.unproven) == (1, 0)
    await comparison.expect_exact()


@pytest.mark.parametrize(
    "faults",
    [
        {"server_error": 0.2, "bad_json": 0.2, "drop": 0.2},
        {"server_error": 0.5},
        {"bad_json": 0.5},
        {"drop": 0.5},
        {"throttle": 0.5},
        {"stale": 0.9},
        {"more": 0.7},
    ],
    ids="-".join,
)
async def test_faults_hide_no_missed_removal(
    comparison: ComparisonBench, faults: dict[str, float]
) -> None:
    """PubNub lags behind, stops early, or fails. Nothing else is pruned."""
    actions = await comparison.knows(3600)
    comparison.lose_removals(actions, range(0, 3600, 6))
    comparison.bench.emulator.state.faults.replace(faults)

    report = await comparison.reconcile().channel(CHANNEL, Range())

    struck = comparison.bench.emulator.state.faults.struck
    comparison.bench.emulator.state.faults.replace({})
    assert (report.pruned, report.unproven, report.refused) == (600, 0, 0)
    assert set(struck) == set(faults)
    await comparison.expect_exact()


async def test_a_stale_page_adds_nothing(comparison: ComparisonBench) -> None:
    """A later page took hours. The action was removed meanwhile, and its tombstone has ended."""
    actions = await comparison.knows(250)
    top = Identity(CHANNEL, MESSAGE, "reaction", "👍", "user240")
    # The newer of two actions is gone, so the list shows one that is not live.
    await comparison.bench.store.apply_all(
        [(CHANNEL, [Removed(top, str(actions[240] + 1), str(actions[240] + 2))])], Origin.LIVE
    )
    comparison.lose_removals(actions, [10])
    await comparison.owes_since_long(GapCause.OVERFLOW)
    pages = 0

    async def hours_pass() -> None:
        nonlocal pages
        pages += 1
        if pages == 2:
            comparison.remove("user240", actions[240])
            await comparison.bench.store.apply_all(
                [(CHANNEL, [Removed(top, str(actions[240]), str(actions[240] + 3))])], Origin.LIVE
            )
            comparison.bench.clock.now += 7200
            await comparison.bench.redis.delete(KEYS.removed(CHANNEL, MESSAGE))

    comparison.between = lambda: setattr(comparison, "asking", hours_pass)

    report = await comparison.reconcile().channel(CHANNEL, Range())

    assert pages > 2  # it was looked at once more
    assert (report.pruned, report.restored, report.added) == (1, 0, 0)
    await comparison.expect_exact()


async def test_partial_answers_end_exact(comparison: ComparisonBench) -> None:
    """Lists that lack items may mislead both passes. The next reconcile adds the items again."""
    comparison.limit = Limit(1, 1000)
    actions = await comparison.knows(300)
    comparison.lose_removals(actions, [7])
    comparison.bench.emulator.state.faults.replace({"partial": 0.5})
    await comparison.reconcile().channel(CHANNEL, Range())
    comparison.bench.emulator.state.faults.replace({})

    await comparison.reconcile().channel(CHANNEL, Range())

    await comparison.expect_exact()


async def test_a_dry_run_writes_nothing(comparison: ComparisonBench) -> None:
    """Its report says what would be done, and what it costs."""
    actions = await comparison.knows(30)
    comparison.remove("user3", actions[3])
    comparison.add("unheard")
    comparison.bench.emulator.state.advance(2 * SETTLE_SECONDS)
    before = await comparison.bench.redis.dbsize(), await comparison.bench.counts()
    comparison.requests = 0

    report = await comparison.reconcile().channel(CHANNEL, Range(), ReconcileOptions(dry_run=True))

    assert (report.added, report.pruned, report.requests) == (1, 1, comparison.requests)
    assert (await comparison.bench.redis.dbsize(), await comparison.bench.counts()) == before


async def test_a_dry_run_adds_no_expired_message(comparison: ComparisonBench) -> None:
    """A real run would not add it either. A younger message is added."""
    comparison.retention_seconds = 86400
    comparison.bench.lay_out(ttls=Ttls(retention_seconds=86400))
    for number in range(3):
        comparison.add(f"user{number}")
    young = shift(await comparison.bench.client.time(), -3600 * TICKS_PER_SECOND)
    comparison.bench.emulator.state.add(CHANNEL, young, "reaction", "👍", "ana")
    comparison.bench.emulator.state.advance(2 * SETTLE_SECONDS)

    report = await comparison.reconcile().channel(CHANNEL, Range(), ReconcileOptions(dry_run=True))
    assert (report.added, report.restored, report.pruned) == (1, 0, 0)

    report = await comparison.reconcile().channel(CHANNEL, Range())
    assert report.added == 1
    assert set((await comparison.bench.counts())[CHANNEL]) == {young}


async def test_only_an_old_mark_is_taken_back(comparison: ComparisonBench) -> None:
    """The lists may not show a recent gap yet, nor one that opens meanwhile."""
    actions = await comparison.knows(30)
    comparison.lose_removals(actions, [3])
    for cause in ("stale_cursor", "overflow"):
        await comparison.owes_since_long(cause)
    await comparison.bench.tables.pending.mark([CHANNEL], GapCause.FORBIDDEN)
    comparison.meanwhile = lambda: comparison.bench.tables.pending.mark(
        [CHANNEL], GapCause.OVERFLOW
    )

    await comparison.reconcile().channel(CHANNEL, Range())

    assert set(await comparison.bench.tables.pending.read(CHANNEL)) == {
        GapCause.FORBIDDEN,
        GapCause.OVERFLOW,
    }


async def test_a_partial_range_takes_back_no_mark(comparison: ComparisonBench) -> None:
    """The missed events may lie in another part."""
    await comparison.knows(3)
    await comparison.owes_since_long("stale_cursor")

    await comparison.reconcile().channel(
        CHANNEL, Range(shift(await comparison.bench.client.time(), -(10**10)))
    )

    assert set(await comparison.bench.tables.pending.read(CHANNEL)) == {"stale_cursor"}


async def test_a_failure_delays_no_other_channel(comparison: ComparisonBench) -> None:
    """PubNub refuses one of the channels."""
    actions = await comparison.knows(5)
    await comparison.knows(5, "forbidden")
    comparison.lose_removals(actions, [3])
    comparison.bench.emulator.state.refuse(["forbidden"])

    reports = await comparison.reconcile().run(["forbidden", CHANNEL], Range())

    assert [(bool(report.failure), report.exit_code) for report in reports] == [
        (True, ExitCode.PUBNUB_REFUSED),
        (False, ExitCode.DONE),
    ]
    assert await comparison.bench.counts() == comparison.bench.emulator.truth()


def void(_: object) -> None:
    """Return nothing, whatever was called."""


async def test_a_look_at_the_recent_past_repairs_counts(comparison: ComparisonBench) -> None:
    """Also of messages whose entries are all live."""
    await comparison.knows(5)
    reconcile = comparison.reconcile()
    await comparison.bench.redis.delete(KEYS.counts(CHANNEL, MESSAGE))

    report = await reconcile.channel(CHANNEL, Range("1", None))

    assert report.rebuilt == 1
    assert await comparison.bench.reader.get(CHANNEL, MESSAGE) == {"reaction": {"👍": 5}}
