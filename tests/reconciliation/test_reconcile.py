"""A reconcile makes tallies equal to PubNub's list, and prunes only what is proven gone."""

import pytest

from tests.bench.bench import KEYS, SETTLE_SECONDS, Bench
from tests.bench.comparing import MESSAGE, Comparing, answer_oddly
from tests.histories import CHANNEL
from tests.source.scripted import SUBSCRIBE_KEY
from worker.applying.apply import StaleError
from worker.cli.reports import reconcile_exit_code
from worker.domain.action import Added, Identity, Origin, Removed
from worker.domain.position import TICKS_PER_SECOND, Range, from_seconds, shift
from worker.domain.reconciliation import Limit
from worker.emulator import Emulator, Page, Window
from worker.errors import ExitCode, ForbiddenError, PubNubError
from worker.reconciliation.reconcile import ReconcileOptions
from worker.source.client import Client, Keyset
from worker.store.pending_repairs import GapCause
from worker.store.store import Ttls

MONTH_SECONDS = 30 * 86400.0


@pytest.fixture
def it(bench: Bench) -> Comparing:
    """Yield a bench to reconcile on."""
    return Comparing(bench)


async def expect_exact(it: Comparing) -> None:
    """Expect Redis to hold PubNub's truth."""
    assert await it.bench.counts() == it.bench.emulator.truth()


async def expect_all_listed_count(it: Comparing) -> None:
    """Expect every listed user to be counted."""
    listed = [
        Identity(CHANNEL, *action.identity) for action in it.bench.emulator.state.actions(CHANNEL)
    ]
    entries = await it.entries.read(CHANNEL, listed)
    assert all(entry.live for entry in entries)


async def test_missed_events_are_made_good(it: Comparing) -> None:
    """Both additions and removals were missed."""
    actions = await it.knows(60)
    for number in (0, 7, 31, 59):
        it.remove(f"user{number}", actions[number])
    it.add("late-comer")
    it.bench.emulator.state.advance(2 * SETTLE_SECONDS)

    report = await it.reconcile().channel(CHANNEL, Range())

    assert (report.added, report.pruned, report.unproven, report.refused) == (1, 4, 0, 0)
    await expect_exact(it)


async def test_agreement_costs_one_pass(it: Comparing) -> None:
    """A short channel takes two requests: its page, and the end."""
    await it.knows(3)
    it.requests = 0

    report = await it.reconcile().channel(CHANNEL, Range())

    assert (report.entries, report.pruned, report.added) == (3, 0, 0)
    assert report.requests == it.requests <= 3


async def test_a_small_channel_heals(it: Comparing) -> None:
    """The floor of the limit allows it."""
    actions = await it.knows(3)
    it.remove("user1", actions[1])
    it.bench.emulator.state.advance(2 * SETTLE_SECONDS)

    assert (await it.reconcile().channel(CHANNEL, Range())).pruned == 1
    await expect_exact(it)


@pytest.mark.parametrize("gone", [{0}, {2}, {0, 1, 2}])
async def test_the_ends_of_a_list_heal(it: Comparing, gone: set[int]) -> None:
    """The oldest and the newest have nothing on one side, so two passes decide."""
    actions = await it.knows(3)
    for number in gone:
        it.remove(f"user{number}", actions[number])
    it.bench.emulator.state.advance(2 * SETTLE_SECONDS)

    report = await it.reconcile().channel(CHANNEL, Range())

    assert (report.pruned, report.unproven) == (len(gone), 0)
    await expect_exact(it)


async def test_a_young_action_is_left_alone(it: Comparing) -> None:
    """Lists lag behind, so it may exist although it is not listed."""
    await it.knows(3)
    young = Identity(CHANNEL, MESSAGE, "reaction", "👍", "young")
    now = await it.bench.client.time()
    await it.bench.store.apply_all([(CHANNEL, [Added(young, now, now)])], Origin.LIVE)

    report = await it.reconcile().channel(CHANNEL, Range())

    assert (report.entries, report.pruned) == (3, 0)
    assert (await it.bench.reader.get(CHANNEL, MESSAGE))["reaction"]["👍"] == 4


async def test_an_action_of_the_second_pass_is_kept(it: Comparing) -> None:
    """It was stored late, with a timetoken of the past."""
    actions = await it.knows(3)
    missing = Identity(CHANNEL, MESSAGE, "reaction", "👍", "slow")
    stamped = str(actions[1] + 1)
    await it.bench.store.apply_all([(CHANNEL, [Added(missing, stamped, stamped)])], Origin.LIVE)
    it.between = lambda: void(it.add("slow", at=int(stamped)))

    report = await it.reconcile().channel(CHANNEL, Range())

    assert (report.pruned, report.unproven) == (0, 0)
    await expect_exact(it)


async def test_a_removed_witness_is_replaced(it: Comparing) -> None:
    """The second pass begins further up."""
    actions = await it.knows(330)
    it.remove("user150", actions[150])
    it.bench.emulator.state.advance(2 * SETTLE_SECONDS)

    def lose_witnesses() -> None:
        for number in range(151, 300):
            it.remove(f"user{number}", actions[number])

    it.between = lose_witnesses

    report = await it.reconcile().channel(CHANNEL, Range())

    assert (report.pruned, report.unproven) == (1, 0)


async def test_a_month_old_action_heals(it: Comparing) -> None:
    """Removals are lost at any age."""
    month_ago = int(from_seconds(it.bench.emulator.state.time.now() / 1e7 - MONTH_SECONDS))
    it.add("old", at=month_ago)
    await it.knows(150)
    it.remove("old", month_ago)

    assert (await it.reconcile().channel(CHANNEL, Range())).pruned == 1
    await expect_exact(it)


async def test_a_past_range_has_outer_witnesses(it: Comparing) -> None:
    """The newest action of the range has its witness behind the end of the range."""
    actions = await it.knows(500)
    since, until = str(actions[100]), str(actions[201])
    for number in (100, 150, 200):
        it.remove(f"user{number}", actions[number])

    report = await it.reconcile().channel(CHANNEL, Range(since, until))

    assert (report.entries, report.pruned, report.unproven) == (101, 3, 0)
    await expect_exact(it)


async def test_the_older_of_two_actions_is_restored(it: Comparing) -> None:
    """The newer one was removed, and its tombstone bars the older one."""
    it.bench.emulator.state.faults.replace({"twin": 1})
    older, newer = (
        action.timetoken
        for action in it.bench.emulator.state.add(CHANNEL, MESSAGE, "r", "x", "u").actions
    )
    it.bench.emulator.state.faults.replace({})
    identity = Identity(CHANNEL, MESSAGE, "r", "x", "u")
    events = [Added(identity, str(older), str(older)), Added(identity, str(newer), str(newer))]
    await it.bench.store.apply_all(
        [(CHANNEL, [*events, Removed(identity, str(newer), str(newer))])], Origin.LIVE
    )
    it.bench.emulator.state.remove(CHANNEL, MESSAGE, newer, "u")
    it.bench.emulator.state.advance(2 * SETTLE_SECONDS)
    await it.bench.tables.channels.add([CHANNEL])

    report = await it.reconcile().channel(CHANNEL, Range())

    assert report.restored == 1
    await expect_exact(it)
    assert await it.bench.tables.pending.read(CHANNEL)  # its removal may still be on its way


async def test_a_prune_uncovers_an_older_action(it: Comparing) -> None:
    """The newer of two actions was removed, and its event was lost."""
    it.bench.emulator.state.faults.replace({"twin": 1})
    change = it.bench.emulator.state.add(CHANNEL, MESSAGE, "r", "x", "u")
    it.bench.emulator.state.faults.replace({})
    await it.knows(3)
    it.bench.emulator.state.remove(CHANNEL, MESSAGE, change.actions[-1].timetoken, "u")
    it.bench.emulator.state.advance(2 * SETTLE_SECONDS)

    report = await it.reconcile().channel(CHANNEL, Range())

    assert (report.pruned, report.unproven) == (1, 0)
    await expect_exact(it)


async def test_a_mass_loss_waits_for_a_person(it: Comparing) -> None:
    """Nothing is pruned and the channel is owed, until ``--force``."""
    actions = await it.knows(100)
    for number in range(30):
        it.remove(f"user{number}", actions[number])
    before = await it.bench.counts()

    report = await it.reconcile().channel(CHANNEL, Range())

    assert (report.refused, report.pruned) == (30, 0)
    assert await it.bench.counts() == before
    assert set(await it.bench.tables.pending.read(CHANNEL)) == {GapCause.UNPROVEN}

    report = await it.reconcile().channel(CHANNEL, Range(), ReconcileOptions(force=True))

    assert report.pruned == 30
    await expect_exact(it)


async def test_a_huge_loss_is_refused_at_once(
    it: Comparing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ``--force`` it is pruned batch by batch."""
    monkeypatch.setattr("worker.reconciliation.evidence.CANDIDATE_BATCH", 10)
    actions = await it.knows(100)
    for number in range(30):
        it.remove(f"user{number}", actions[number])

    assert (await it.reconcile().channel(CHANNEL, Range())).refused == 30
    assert (
        await it.reconcile().channel(CHANNEL, Range(), ReconcileOptions(force=True))
    ).pruned == 30
    await expect_exact(it)


async def test_an_unknown_origin_empties_no_tally(it: Comparing) -> None:
    """Neither a large channel nor one small channel after the other."""
    channels = [f"small{number}" for number in range(12)]
    for channel in channels:
        await it.knows(2, channel)
    await it.knows(50)
    before = await it.bench.counts()
    reconcile = it.reconcile()

    it.bench.emulator.state.faults.replace({"empty": 1})
    reports = await reconcile.run([CHANNEL, *channels], Range())
    it.bench.emulator.state.faults.replace({})

    lost = sum(report.pruned for report in reports)
    assert lost == 0
    assert all(report.refused for report in reports)
    assert await it.bench.counts() == before


async def test_a_wrong_origin_empties_nothing_later(it: Comparing) -> None:
    """Each channel is small enough for the limit.

    Neither this process nor the next one prunes any.
    """
    channels = [f"small{number}" for number in range(8)]
    for channel in channels:
        await it.knows(3, channel)
    before = await it.bench.counts()

    async with (
        Emulator(seed=9, idle_seconds=0.5) as other,
        Client(Keyset(SUBSCRIBE_KEY, "tally", origin=other.origin, tls=False)) as wrong,
    ):
        other.state.advance(1000 * SETTLE_SECONDS)
        it.bench.client = wrong
        for _ in range(2):
            reports = await it.reconcile().run(channels, Range())
            assert [(report.pruned, report.refused) for report in reports] == [(0, 3)] * 8

    assert await it.bench.counts() == before
    assert {*await it.bench.tables.pending.read_all(channels)} == {*channels}


async def test_an_emptied_channel_heals_beside_listed_ones(it: Comparing) -> None:
    """The other channels show that PubNub knows us."""
    [action] = await it.knows(1, "emptied")
    await it.knows(3)
    it.remove("user0", action, "emptied")
    it.bench.emulator.state.advance(2 * SETTLE_SECONDS)

    assert (await it.reconcile().channel("emptied", Range())).pruned == 1
    await expect_exact(it)


@pytest.mark.parametrize("kind", ["html", "server_error", "drop", "empty_object", "list"])
async def test_an_outage_prunes_nothing(it: Comparing, kind: str) -> None:
    """The report says so, and the marks stay."""
    await it.knows(50)
    await it.bench.tables.pending.mark([CHANNEL], GapCause.OVERFLOW)
    before = await it.bench.counts()
    it.bench.emulator.state.set_outage(kind, ["actions"])
    it.tries = 3

    with pytest.raises(PubNubError):
        await it.reconcile().channel(CHANNEL, Range(), ReconcileOptions(force=True))

    assert await it.bench.counts() == before
    assert await it.bench.tables.pending.read(CHANNEL)


async def test_a_refused_channel_is_not_pruned(it: Comparing) -> None:
    """Neither in the first pass nor in the second."""
    actions = await it.knows(50)
    it.remove("user3", actions[3])
    it.between = lambda: it.bench.emulator.state.refuse([CHANNEL])
    before = await it.bench.counts()

    with pytest.raises(ForbiddenError):
        await it.reconcile().channel(CHANNEL, Range())

    assert await it.bench.counts() == before


async def expect_all_pruned(
    it: Comparing, entries: int, missed: int, faults: dict[str, float]
) -> None:
    """Expect a reconcile to prune exactly what was removed, while PubNub fails."""
    actions = await it.knows(entries)
    for number in range(0, entries, entries // missed):
        it.remove(f"user{number}", actions[number])
    it.bench.emulator.state.advance(2 * SETTLE_SECONDS)
    it.bench.emulator.state.faults.replace(faults)

    report = await it.reconcile().channel(CHANNEL, Range())

    struck = it.bench.emulator.state.faults.struck
    it.bench.emulator.state.faults.replace({})
    assert (report.pruned, report.unproven, report.refused) == (missed, 0, 0)
    assert set(struck) == set(faults)
    await expect_exact(it)


async def test_a_thousand_missed_removals_are_pruned(it: Comparing) -> None:
    """Every second request fails."""
    await expect_all_pruned(it, 6000, 1000, {"server_error": 0.2, "bad_json": 0.2, "drop": 0.2})


@pytest.mark.parametrize(
    "faults",
    [
        {"server_error": 0.5},
        {"bad_json": 0.5},
        {"drop": 0.5},
        {"throttle": 0.5},
        {"stale": 0.9},
        {"more": 0.7},
    ],
    ids=lambda faults: next(iter(faults)),
)
async def test_faults_hide_no_missed_removal(it: Comparing, faults: dict[str, float]) -> None:
    """PubNub lags behind, stops early, or fails."""
    await expect_all_pruned(it, 900, 150, faults)


async def test_refusals_prune_nothing_that_exists(it: Comparing) -> None:
    """A 403 ends a reconcile at any step. A later reconcile comes to its end."""
    actions = await it.knows(150)
    for number in range(0, 150, 6):
        it.remove(f"user{number}", actions[number])
    it.bench.emulator.state.advance(2 * SETTLE_SECONDS)
    it.bench.emulator.state.faults.replace({"forbidden": 0.3})
    refusals, is_refused = 0, True

    while is_refused:
        try:
            await it.reconcile().channel(CHANNEL, Range())
            is_refused = False
        except ForbiddenError:
            refusals += 1
            await expect_all_listed_count(it)

    assert refusals > 1
    await expect_exact(it)


async def test_empty_answers_prune_nothing_that_exists(it: Comparing) -> None:
    """Every second answer is empty. What is not proven stays owed."""
    actions = await it.knows(900)
    gone = range(0, 900, 6)
    for number in gone:
        it.remove(f"user{number}", actions[number])
    it.bench.emulator.state.advance(2 * SETTLE_SECONDS)
    it.bench.emulator.state.faults.replace({"empty": 0.5})

    report = await it.reconcile().channel(CHANNEL, Range())

    assert report.pruned <= len(gone)
    await expect_all_listed_count(it)
    assert report.pruned == len(gone) or await it.bench.tables.pending.read(CHANNEL)
    it.bench.emulator.state.faults.replace({})
    await it.reconcile().channel(CHANNEL, Range())
    await expect_exact(it)


async def test_an_empty_page_with_more_is_no_end(it: Comparing) -> None:
    """PubNub may stop early before it finds anything. Such a page proves nothing."""
    await it.knows(3)
    looks = ["blank"]

    def odd(_: str, window: Window) -> Page | None:
        if looks[-1] == "begins":
            looks.append("goes on")
            assert window.start
            return Page((), more=window.start - 10)
        return Page(()) if looks[-1] == "blank" else None

    answer_oddly(it.bench, odd)
    it.between = lambda: looks.append("begins")

    report = await it.reconcile().channel(CHANNEL, Range())

    assert looks[-1] == "goes on"
    assert (report.pruned, report.unproven) == (0, 0)
    await expect_exact(it)


async def test_removals_during_a_pass_are_no_losses(it: Comparing) -> None:
    """Their entries are unseen, but they need no second pass."""
    actions = await it.knows(60)

    async def removals_are_heard() -> None:
        it.asking = None
        for number in range(25):
            it.remove(f"user{number}", actions[number])
        gone = [
            Removed(
                Identity(CHANNEL, MESSAGE, "reaction", "👍", f"user{number}"),
                str(at),
                str(at + 10**7),
            )
            for number, at in enumerate(actions[:25])
        ]
        await it.bench.store.apply_all([(CHANNEL, gone)], Origin.LIVE)

    it.asking = removals_are_heard
    it.between = lambda: pytest.fail("there is nothing to look at again")

    report = await it.reconcile().channel(CHANNEL, Range())

    assert report.entries == 60
    assert (report.refused, report.unproven, report.pruned) == (0, 0, 0)
    assert reconcile_exit_code([report]) is ExitCode.DONE
    assert await it.bench.tables.pending.read(CHANNEL) == {}
    await expect_exact(it)


async def test_a_stale_page_adds_nothing(it: Comparing) -> None:
    """A later page took hours. The action was removed meanwhile, and its tombstone has ended."""
    actions = await it.knows(250)
    top = Identity(CHANNEL, MESSAGE, "reaction", "👍", "user240")
    # Of two actions the newer one went, so the list shows one that is not live.
    await it.bench.store.apply_all(
        [(CHANNEL, [Removed(top, str(actions[240] + 1), str(actions[240] + 2))])], Origin.LIVE
    )
    it.remove("user10", actions[10])
    it.bench.emulator.state.advance(2 * SETTLE_SECONDS)
    await it.owes_since_long(GapCause.OVERFLOW)
    pages = 0

    async def hours_pass() -> None:
        nonlocal pages
        pages += 1
        if pages == 2:
            it.remove("user240", actions[240])
            await it.bench.store.apply_all(
                [(CHANNEL, [Removed(top, str(actions[240]), str(actions[240] + 3))])], Origin.LIVE
            )
            it.bench.clock.now += 7200
            await it.bench.redis.delete(KEYS.removed(CHANNEL, MESSAGE))

    it.between = lambda: setattr(it, "asking", hours_pass)

    with pytest.raises(StaleError):
        await it.reconcile().channel(CHANNEL, Range())

    assert pages >= 2
    await expect_exact(it)
    assert set(await it.bench.tables.pending.read(CHANNEL)) == {GapCause.OVERFLOW}


async def test_partial_answers_end_exact(it: Comparing) -> None:
    """Lists that lack items may mislead both passes. The next reconcile adds the items again."""
    it.limit = Limit(1, 1000)
    actions = await it.knows(300)
    it.remove("user7", actions[7])
    it.bench.emulator.state.advance(2 * SETTLE_SECONDS)
    it.bench.emulator.state.faults.replace({"partial": 0.5})
    await it.reconcile().channel(CHANNEL, Range())
    it.bench.emulator.state.faults.replace({})

    await it.reconcile().channel(CHANNEL, Range())

    await expect_exact(it)


async def test_a_dry_run_writes_nothing(it: Comparing) -> None:
    """Its report says what would be done, and what it costs."""
    actions = await it.knows(30)
    it.remove("user3", actions[3])
    it.add("unheard")
    it.bench.emulator.state.advance(2 * SETTLE_SECONDS)
    before = await it.bench.redis.dbsize(), await it.bench.counts()
    it.requests = 0

    report = await it.reconcile().channel(CHANNEL, Range(), ReconcileOptions(dry_run=True))

    assert (report.added, report.pruned, report.requests) == (1, 1, it.requests)
    assert (await it.bench.redis.dbsize(), await it.bench.counts()) == before


async def test_a_dry_run_adds_no_expired_message(it: Comparing) -> None:
    """A real run would not add it either. A younger message is added."""
    it.retention_seconds = 86400
    it.bench.lay_out(ttls=Ttls(retention_seconds=86400))
    for number in range(3):
        it.add(f"user{number}")
    young = shift(await it.bench.client.time(), -3600 * TICKS_PER_SECOND)
    it.bench.emulator.state.add(CHANNEL, young, "reaction", "👍", "ana")
    it.bench.emulator.state.advance(2 * SETTLE_SECONDS)

    report = await it.reconcile().channel(CHANNEL, Range(), ReconcileOptions(dry_run=True))
    assert (report.added, report.restored, report.pruned) == (1, 0, 0)

    report = await it.reconcile().channel(CHANNEL, Range())
    assert report.added == 1
    assert set((await it.bench.counts())[CHANNEL]) == {young}


async def test_only_an_old_mark_is_taken_back(it: Comparing) -> None:
    """The lists may not show a recent gap yet, nor one that opens meanwhile."""
    actions = await it.knows(30)
    it.remove("user3", actions[3])
    it.bench.emulator.state.advance(2 * SETTLE_SECONDS)
    for cause in ("stale_cursor", "overflow"):
        await it.owes_since_long(cause)
    await it.bench.tables.pending.mark([CHANNEL], GapCause.FORBIDDEN)
    it.meanwhile = lambda: it.bench.tables.pending.mark([CHANNEL], GapCause.OVERFLOW)

    await it.reconcile().channel(CHANNEL, Range())

    assert set(await it.bench.tables.pending.read(CHANNEL)) == {
        GapCause.FORBIDDEN,
        GapCause.OVERFLOW,
    }


async def test_a_partial_range_takes_back_no_mark(it: Comparing) -> None:
    """The missed events may lie in another part."""
    await it.knows(3)
    await it.owes_since_long("stale_cursor")

    await it.reconcile().channel(CHANNEL, Range(shift(await it.bench.client.time(), -(10**10))))

    assert set(await it.bench.tables.pending.read(CHANNEL)) == {"stale_cursor"}


async def test_a_failure_delays_no_other_channel(it: Comparing) -> None:
    """PubNub refuses one of the channels."""
    actions = await it.knows(5)
    await it.knows(5, "forbidden")
    it.remove("user3", actions[3])
    it.bench.emulator.state.advance(2 * SETTLE_SECONDS)
    it.bench.emulator.state.refuse(["forbidden"])

    reports = await it.reconcile().run(["forbidden", CHANNEL], Range())

    assert [(bool(report.failure), report.exit_code) for report in reports] == [
        (True, ExitCode.PUBNUB_REFUSED),
        (False, ExitCode.DONE),
    ]
    assert await it.bench.counts() == it.bench.emulator.truth()


def void(_: object) -> None:
    """Return nothing, whatever was called."""
