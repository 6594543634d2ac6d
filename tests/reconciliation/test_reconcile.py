"""Tallies become PubNub's own set of actions, whatever was missed; nothing goes that is not proven gone."""

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
    """A bench to reconcile on."""
    return Comparing(bench)


async def expect_exact(it: Comparing) -> None:
    """Expect Redis to hold PubNub's truth."""
    assert await it.bench.counts() == it.bench.emulator.truth()


async def expect_nobody_is_missing(it: Comparing) -> None:
    """Expect everybody who is in PubNub's list to be counted."""
    listed = [
        Identity(CHANNEL, *action.identity) for action in it.bench.emulator.state.actions(CHANNEL)
    ]
    entries = await it.entries.read(CHANNEL, listed)
    assert all(entry.live for entry in entries)


async def test_missed_additions_and_removals_are_made_good(it: Comparing) -> None:
    """Nobody was listening to any of them."""
    actions = await it.knows(60)
    for number in (0, 7, 31, 59):
        it.remove(f"user{number}", actions[number])
    it.add("late-comer")
    it.bench.emulator.state.advance(2 * SETTLE_SECONDS)

    report = await it.reconcile().channel(CHANNEL, Range())

    assert (report.added, report.pruned, report.unproven, report.refused) == (1, 4, 0, 0)
    await expect_exact(it)


async def test_what_agrees_costs_one_look(it: Comparing) -> None:
    """Two requests for a short channel: its page, and the end of it."""
    await it.knows(3)
    it.requests = 0

    report = await it.reconcile().channel(CHANNEL, Range())

    assert (report.entries, report.pruned, report.added) == (3, 0, 0)
    assert report.requests == it.requests <= 3


async def test_a_channel_of_three_heals(it: Comparing) -> None:
    """The limit is for many."""
    actions = await it.knows(3)
    it.remove("user1", actions[1])
    it.bench.emulator.state.advance(2 * SETTLE_SECONDS)

    assert (await it.reconcile().channel(CHANNEL, Range())).pruned == 1
    await expect_exact(it)


@pytest.mark.parametrize("gone", [{0}, {2}, {0, 1, 2}])
async def test_the_ends_of_a_list_heal_too(it: Comparing, gone: set[int]) -> None:
    """The oldest, the newest, all of them: nothing is left to bracket them with, and two looks decide."""
    actions = await it.knows(3)
    for number in gone:
        it.remove(f"user{number}", actions[number])
    it.bench.emulator.state.advance(2 * SETTLE_SECONDS)

    report = await it.reconcile().channel(CHANNEL, Range())

    assert (report.pruned, report.unproven) == (len(gone), 0)
    await expect_exact(it)


async def test_what_is_young_is_left_alone(it: Comparing) -> None:
    """Lists lag behind: an action of a moment ago that is not listed may well exist."""
    await it.knows(3)
    young = Identity(CHANNEL, MESSAGE, "reaction", "👍", "young")
    now = await it.bench.client.time()
    await it.bench.store.apply(CHANNEL, [Added(young, now, now)], Origin.LIVE)

    report = await it.reconcile().channel(CHANNEL, Range())

    assert (report.entries, report.pruned) == (3, 0)
    assert (await it.bench.reader.get(CHANNEL, MESSAGE))["reaction"]["👍"] == 4


async def test_what_the_second_look_shows_is_kept(it: Comparing) -> None:
    """An action stored late, with a timetoken of the past: the first list did not have it, the second has."""
    actions = await it.knows(3)
    missing = Identity(CHANNEL, MESSAGE, "reaction", "👍", "slow")
    stamped = str(actions[1] + 1)
    await it.bench.store.apply(CHANNEL, [Added(missing, stamped, stamped)], Origin.LIVE)
    it.between = lambda: void(it.add("slow", at=int(stamped)))

    report = await it.reconcile().channel(CHANNEL, Range())

    assert (report.pruned, report.unproven) == (0, 0)
    await expect_exact(it)


async def test_a_witness_lost_between_the_looks_is_replaced(it: Comparing) -> None:
    """The second look begins above; whoever stood there has gone, and it begins further up."""
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


async def test_a_range_in_the_past_is_bracketed_from_outside(it: Comparing) -> None:
    """The newest of the range has its witness beyond the range's end."""
    actions = await it.knows(500)
    since, until = str(actions[100]), str(actions[201])
    for number in (100, 150, 200):
        it.remove(f"user{number}", actions[number])

    report = await it.reconcile().channel(CHANNEL, Range(since, until))

    assert (report.entries, report.pruned, report.unproven) == (101, 3, 0)
    await expect_exact(it)


async def test_the_older_of_two_actions_of_one_user_comes_back(it: Comparing) -> None:
    """The newer one was removed, and its tombstone bars the older one, which exists."""
    it.bench.emulator.state.faults.replace({"twin": 1})
    older, newer = (
        action.timetoken
        for action in it.bench.emulator.state.add(CHANNEL, MESSAGE, "r", "x", "u").actions
    )
    it.bench.emulator.state.faults.replace({})
    identity = Identity(CHANNEL, MESSAGE, "r", "x", "u")
    events = [Added(identity, str(older), str(older)), Added(identity, str(newer), str(newer))]
    await it.bench.store.apply(
        CHANNEL, [*events, Removed(identity, str(newer), str(newer))], Origin.LIVE
    )
    it.bench.emulator.state.remove(CHANNEL, MESSAGE, newer, "u")
    it.bench.emulator.state.advance(2 * SETTLE_SECONDS)
    await it.bench.tables.channels.add([CHANNEL])

    report = await it.reconcile().channel(CHANNEL, Range())

    assert report.restored == 1
    await expect_exact(it)
    assert await it.bench.tables.pending.read(
        CHANNEL
    )  # it is looked at once more: a removal may have been on its way


async def test_a_shadowed_action_counts_when_the_other_is_pruned(it: Comparing) -> None:
    """The newer of two was removed, and nobody heard of it."""
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
    """Nothing is pruned, the channel is owed, and --force does it."""
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


async def test_a_mass_loss_too_large_to_hold_is_refused_at_once(
    it: Comparing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And, forced, it is done in turns."""
    monkeypatch.setattr("worker.reconciliation.evidence.CANDIDATE_BATCH", 10)
    actions = await it.knows(100)
    for number in range(30):
        it.remove(f"user{number}", actions[number])

    assert (await it.reconcile().channel(CHANNEL, Range())).refused == 30
    assert (
        await it.reconcile().channel(CHANNEL, Range(), ReconcileOptions(force=True))
    ).pruned == 30
    await expect_exact(it)


async def test_an_origin_that_knows_nothing_empties_no_tally(it: Comparing) -> None:
    """Not one large channel, nor one small channel after the other."""
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


async def test_a_wrong_origin_empties_nothing_however_often(it: Comparing) -> None:
    """Small channels, each of which the limit would let go: not in this process, nor in the next."""
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


async def test_a_channel_that_was_emptied_heals_where_others_are_listed(it: Comparing) -> None:
    """They show that PubNub knows us."""
    [action] = await it.knows(1, "emptied")
    await it.knows(3)
    it.remove("user0", action, "emptied")
    it.bench.emulator.state.advance(2 * SETTLE_SECONDS)

    assert (await it.reconcile().channel("emptied", Range())).pruned == 1
    await expect_exact(it)


@pytest.mark.parametrize("kind", ["html", "server_error", "drop", "empty_object", "list"])
async def test_an_outage_prunes_nothing(it: Comparing, kind: str) -> None:
    """It says so, and what was owed stays owed."""
    await it.knows(50)
    await it.bench.tables.pending.mark([CHANNEL], GapCause.OVERFLOW)
    before = await it.bench.counts()
    it.bench.emulator.state.set_outage(kind, ["actions"])
    it.tries = 3

    with pytest.raises(PubNubError):
        await it.reconcile().channel(CHANNEL, Range(), ReconcileOptions(force=True))

    assert await it.bench.counts() == before
    assert await it.bench.tables.pending.read(CHANNEL)


async def test_a_channel_that_is_refused_is_not_pruned(it: Comparing) -> None:
    """Neither in the first look nor in the second."""
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
    """Expect a reconcile to prune what was removed unheard, and nothing else, while PubNub fails."""
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
    """While every second request fails, none but those."""
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
async def test_missed_removals_are_pruned_however_pubnub_fails(
    it: Comparing, faults: dict[str, float]
) -> None:
    """Or lags behind, or stops early: none but those."""
    await expect_all_pruned(it, 900, 150, faults)


async def test_refusals_prune_nothing_that_exists(it: Comparing) -> None:
    """A 403 ends a reconcile wherever it has come to; the next one begins anew, and one comes through."""
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
            await expect_nobody_is_missing(it)

    assert refusals > 1
    await expect_exact(it)


async def test_empty_answers_prune_nothing_that_exists(it: Comparing) -> None:
    """Every second request is answered with an empty list: what is pruned is gone, and the rest stays owed."""
    actions = await it.knows(900)
    gone = range(0, 900, 6)
    for number in gone:
        it.remove(f"user{number}", actions[number])
    it.bench.emulator.state.advance(2 * SETTLE_SECONDS)
    it.bench.emulator.state.faults.replace({"empty": 0.5})

    report = await it.reconcile().channel(CHANNEL, Range())

    assert report.pruned <= len(gone)
    await expect_nobody_is_missing(it)
    assert report.pruned == len(gone) or await it.bench.tables.pending.read(CHANNEL)
    it.bench.emulator.state.faults.replace({})
    await it.reconcile().channel(CHANNEL, Range())
    await expect_exact(it)


async def test_an_empty_page_with_more_is_no_end(it: Comparing) -> None:
    """PubNub may stop early before it has found anything; a first look that saw nothing makes it no witness."""
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


async def test_removals_heard_during_the_look_are_no_losses(it: Comparing) -> None:
    """They went while the list was read, so they did not answer the seen; nobody waits for a second look at them."""
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
        await it.bench.store.apply(CHANNEL, gone, Origin.LIVE)

    it.asking = removals_are_heard
    it.between = lambda: pytest.fail("there is nothing to look at again")

    report = await it.reconcile().channel(CHANNEL, Range())

    assert report.entries == 60
    assert (report.refused, report.unproven, report.pruned) == (0, 0, 0)
    assert reconcile_exit_code([report]) is ExitCode.DONE
    assert await it.bench.tables.pending.read(CHANNEL) == {}
    await expect_exact(it)


async def test_what_was_listed_long_ago_is_not_added(it: Comparing) -> None:
    """PubNub took hours over a later page; meanwhile it was removed, and its tombstone has come to its end."""
    actions = await it.knows(250)
    top = Identity(CHANNEL, MESSAGE, "reaction", "👍", "user240")
    # Of two actions the newer one went, so the list shows one that is not live.
    await it.bench.store.apply(
        CHANNEL, [Removed(top, str(actions[240] + 1), str(actions[240] + 2))], Origin.LIVE
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
            await it.bench.store.apply(
                CHANNEL, [Removed(top, str(actions[240]), str(actions[240] + 3))], Origin.LIVE
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
    """Lists that lack items without a sign may mislead both looks; the next reconcile brings back what is there."""
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
    """It says what would be done, and what it costs."""
    actions = await it.knows(30)
    it.remove("user3", actions[3])
    it.add("unheard")
    it.bench.emulator.state.advance(2 * SETTLE_SECONDS)
    before = await it.bench.redis.dbsize(), await it.bench.counts()
    it.requests = 0

    report = await it.reconcile().channel(CHANNEL, Range(), ReconcileOptions(dry_run=True))

    assert (report.added, report.pruned, report.requests) == (1, 1, it.requests)
    assert (await it.bench.redis.dbsize(), await it.bench.counts()) == before


async def test_a_dry_run_adds_nothing_of_before_the_retention(it: Comparing) -> None:
    """Nor would it be added in earnest; what is young enough is."""
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


async def test_only_a_mark_that_is_old_enough_is_repaid(it: Comparing) -> None:
    """A gap of a moment ago is not in the lists yet; neither is one that opens while the reconcile runs."""
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


async def test_a_partial_range_repays_nothing(it: Comparing) -> None:
    """What was missed may lie elsewhere."""
    await it.knows(3)
    await it.owes_since_long("stale_cursor")

    await it.reconcile().channel(CHANNEL, Range(shift(await it.bench.client.time(), -(10**10))))

    assert set(await it.bench.tables.pending.read(CHANNEL)) == {"stale_cursor"}


async def test_every_channel_is_reconciled_before_a_failure_is_told(it: Comparing) -> None:
    """One that PubNub refuses keeps nobody else waiting."""
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
    """Return nothing, whatever was done."""
