"""A verify reports differences, in two passes, and writes nothing."""

import random
from dataclasses import asdict
from functools import partial
from typing import Any, Final, cast

import pytest

from tests.bench.bench import KEYS, SETTLE_SECONDS
from tests.bench.comparison import MESSAGE, ComparisonBench, answer_oddly
from tests.bench.repairs import RepairBench
from tests.bench.virtual import on_virtual_time, unheard
from tests.histories import CHANNEL
from tests.simulation.world import World
from tests.waiting import wait_until
from worker.cli.reports import verify_json, verify_lines
from worker.domain.action import Added, Identity, Origin, Pruned
from worker.domain.position import TICKS_PER_SECOND, Range, shift
from worker.emulator import Page
from worker.errors import ExitCode
from worker.reconciliation.report import Discrepancy, VerifyReport
from worker.reconciliation.verify import Sample, Verifier, verify
from worker.service.parts import build_comparison
from worker.store.apply_script import Ttls
from worker.store.pending_repairs import GapCause
from worker.store.tables import Tables


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


@on_virtual_time
async def test_a_channel_that_waits_holds_no_slot(world: World) -> None:
    """A hundred channels differ, and wait for their second pass at the same time."""
    channels = [f"room{number}" for number in range(100)]
    unheard(world, channels, 1)
    repairs = RepairBench(world)
    comparison = build_comparison(repairs.parts, 3)
    slots = repairs.parts.slots
    verifier = Verifier(
        comparison,
        repairs.entries,
        repairs.parts.audit,
        Sample(1, random.Random(3)),
        slots,
        partial(slots.pause, SETTLE_SECONDS),
    )
    began = world.loop.time()

    report = await verifier.run(channels)

    assert len(report.discrepancies) == 100
    assert world.loop.time() - began < 3 * SETTLE_SECONDS


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


async def owing_hall(comparison: ComparisonBench) -> Tables:
    """Let two channels lack an action; one of them is owed a repair."""
    for channel in (CHANNEL, "hall"):
        await comparison.knows(3, channel)
        comparison.add("unheard", channel=channel)
    comparison.bench.emulator.state.advance(2 * SETTLE_SECONDS)
    tables = comparison.bench.tables
    await tables.pending.mark(["hall"], GapCause.OVERFLOW)
    return tables


async def test_what_is_owed_is_no_difference(comparison: ComparisonBench) -> None:
    """A channel is under repair, and one is not: only the second one differs."""
    tables = await owing_hall(comparison)

    report = await verify(comparison.verify(), tables, [CHANNEL, "hall"])
    only_owed = await verify(comparison.verify(), tables, ["hall"])

    assert [item.channel for item in report.discrepancies] == [CHANNEL]
    assert [(item.channel, item.missing) for item in report.owed] == [("hall", 1)]
    assert report.under_repair.keys() == {"hall"}
    assert report.exit_code is ExitCode.DIFFERENCES
    assert (only_owed.exit_code, only_owed.is_whole) == (ExitCode.DONE, True)


async def test_a_gap_that_is_noticed_meanwhile_is_owed(comparison: ComparisonBench) -> None:
    """The worker marks the channel between the two passes; it repays another one."""
    tables = await owing_hall(comparison)

    pending = tables.pending

    async def a_worker_acts() -> None:
        await pending.mark([CHANNEL], GapCause.STALE_CURSOR)
        await pending.clear("hall", await pending.read("hall"))

    comparison.meanwhile = a_worker_acts

    report = await verify(comparison.verify(), tables, [CHANNEL, "hall"])

    assert (report.discrepancies, report.exit_code) == ([], ExitCode.DONE)
    assert [item.channel for item in report.owed] == ["hall", CHANNEL]


async def test_a_wrong_count_in_redis_is_never_owed(comparison: ComparisonBench) -> None:
    """Something changed a count by hand while the channel is under repair."""
    await comparison.knows(3)
    redis = cast("Any", comparison.bench.redis)
    await redis.hincrby(KEYS.counts(CHANNEL, MESSAGE), "reaction:👍", 2)
    tables = comparison.bench.tables
    pending = tables.pending
    await pending.mark([CHANNEL], GapCause.OVERFLOW)

    report = await verify(comparison.verify(), tables, [CHANNEL])

    assert (len(report.flaws), report.exit_code) == (1, ExitCode.DIFFERENCES)


def test_a_report_says_since_when() -> None:
    """For people a line for each channel, for programs the time in UTC."""
    known = Discrepancy(**asdict(discrepancy("👍", missing=2, surplus=1)) | {"channel": "hall"})
    report = VerifyReport(channels=1, discrepancies=[known])
    now = 1_764_417_780_000
    marks = {"overflow": now, "damaged_key": now + 20_000}
    report.set_apart({"hall": marks}, now + 60_000)

    without_worker = list(verify_lines(report))
    report.has_worker = True
    lines = list(verify_lines(report))
    document = verify_json(report)

    assert lines[0] == (
        "hall: under repair since 2025-11-29T12:03:00+00:00: 2 not counted, 1 too many"
    )
    sentence = "1 differences in 1 channels are known."
    assert lines[1] == f"{sentence} A worker repairs them: there is nothing to do."
    assert without_worker[1] == f"{sentence} No worker runs now. Start one: it repairs them."
    assert lines[2].startswith("0 differences from PubNub")
    assert document["exact"] is True
    assert document["under_repair"] == {"hall": "2025-11-29T12:03:00+00:00"}
    assert document["discrepancies"] == []


DAY: Final = 86_400_000
LATE: Final[list[dict[str, int]]] = [
    {"overflow": DAY + 1},
    {"overflow": -60_000},
    {"unproven": 1000},
    {"forbidden": 1000},
    {"quarantined": 1000},
    {"of_a_newer_version": 1000},
    {"overflow": 1000, "unproven": 1000},
    {"overflow": 1000, "stale_cursor": 200 * DAY},
]
"""Cause → age in milliseconds."""


@pytest.mark.parametrize("ages", LATE, ids=str)
async def test_what_no_worker_repairs_in_time_is_a_difference(
    comparison: ComparisonBench, ages: dict[str, int]
) -> None:
    """The mark is older than a day, of the future, or of a cause that may need a person."""
    await comparison.knows(3)
    comparison.add("unheard")
    comparison.bench.emulator.state.advance(2 * SETTLE_SECONDS)
    tables = comparison.bench.tables
    now = await tables.server.now()
    marks = {cause: str(now - age) for cause, age in ages.items()}
    await cast("Any", comparison.bench.redis).hset(KEYS.owed(CHANNEL), mapping=marks)

    report = await verify(comparison.verify(), tables, [CHANNEL])
    lines = "\n".join(verify_lines(report))
    late = cast("Any", verify_json(report)["late"])

    assert (report.exit_code, report.owed) == (ExitCode.DIFFERENCES, [])
    assert f"{CHANNEL}: owed a repair since 20" in lines
    assert f"({', '.join(sorted(ages))}). It is late, or waits for a person." in lines
    assert "nothing to do" not in lines
    assert list(late[CHANNEL]["causes"]) == sorted(ages)


async def test_a_mark_of_an_unknown_time_is_late(comparison: ComparisonBench) -> None:
    """It may have been there for ever."""
    await comparison.knows(3)
    comparison.add("unheard")
    comparison.bench.emulator.state.advance(2 * SETTLE_SECONDS)
    tables = comparison.bench.tables
    await cast("Any", comparison.bench.redis).hset(KEYS.owed(CHANNEL), "overflow", "soon")

    report = await verify(comparison.verify(), tables, [CHANNEL])

    assert report.exit_code is ExitCode.DIFFERENCES
    assert "since an unknown time (overflow)" in "\n".join(verify_lines(report))


async def test_a_report_says_whether_a_worker_repairs(comparison: ComparisonBench) -> None:
    """A worker has kept its names registered just now, or it has stopped."""
    tables = comparison.bench.tables
    before = await verify(comparison.verify(), tables, [CHANNEL])
    await tables.cursors.register("subscription", [CHANNEL])
    running = await verify(comparison.verify(), tables, [CHANNEL])
    await comparison.bench.redis.expire("tally:subscriptions", 86_340)
    stopped = await verify(comparison.verify(), tables, [CHANNEL])

    assert [item.has_worker for item in (before, running, stopped)] == [False, True, False]


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


@pytest.mark.parametrize("retention_seconds", [1800, 86400])
async def test_a_message_is_compared_until_it_expires(
    comparison: ComparisonBench, retention_seconds: int
) -> None:
    """A reaction too many and one too few, on a message that expires in ten minutes."""
    comparison.retention_seconds = retention_seconds
    comparison.bench.lay_out(ttls=Ttls(retention_seconds=retention_seconds))
    now = await comparison.bench.client.time()
    message = shift(now, (600 - retention_seconds) * TICKS_PER_SECOND)
    await _knows_only(comparison, message)

    report = await comparison.verify().run([CHANNEL])

    assert [(found.missing, found.surplus) for found in report.discrepancies] == [(1, 1)]
    assert report.unproven == 0

    repaired = await comparison.reconcile().channel(CHANNEL, Range())

    assert (repaired.added, repaired.pruned, repaired.unproven) == (1, 1, 0)
    assert (await comparison.verify().run([CHANNEL])).is_exact


async def test_a_message_that_expires_meanwhile_is_no_difference(
    comparison: ComparisonBench,
) -> None:
    """It is deleted between the two passes."""
    comparison.retention_seconds = 86400
    comparison.bench.lay_out(ttls=Ttls(retention_seconds=86400))
    redis = cast("Any", comparison.bench.redis)
    seconds, _ = await redis.time()
    message = f"{seconds - 86400 + 2}0000000"
    await _knows_only(comparison, message)

    async def is_expired() -> bool:
        await comparison.bench.store.sweep(CHANNEL)
        return not await redis.exists(KEYS.counts(CHANNEL, message))

    comparison.meanwhile = lambda: wait_until(is_expired)

    report = await comparison.verify().run([CHANNEL])

    assert (report.entries, report.discrepancies, report.unproven) == (1, [], 0)


async def _knows_only(comparison: ComparisonBench, message: str) -> None:
    """Let PubNub list a reaction of ana to the message, and Redis count one of ben."""
    state = comparison.bench.emulator.state
    state.add(CHANNEL, message, "reaction", "👍", "ana", published=False)
    gone = state.add(CHANNEL, message, "reaction", "👍", "ben", published=False).actions[-1]
    state.remove(CHANNEL, message, gone.timetoken, "ben", published=False)
    ben = Identity(CHANNEL, message, "reaction", "👍", "ben")
    counted = Added(ben, str(gone.timetoken), str(gone.timetoken))
    await comparison.bench.store.apply_all([(CHANNEL, [counted])], Origin.LIVE)
    state.advance(2 * SETTLE_SECONDS)


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


@pytest.mark.parametrize("kind", ["messages", "actions", "counts"])
async def test_a_damaged_key_hides_no_other_channel(comparison: ComparisonBench, kind: str) -> None:
    """Its channel is named with the key. The others are compared."""
    await comparison.knows(3)
    await comparison.knows(2, "hall")
    comparison.add("carol", channel="hall")
    comparison.bench.emulator.state.advance(2 * SETTLE_SECONDS)
    messages, _, _ = KEYS.changed(CHANNEL)
    counts, actions, _ = KEYS.message(CHANNEL, MESSAGE)
    key = {"messages": messages, "actions": actions, "counts": counts}[kind]
    await comparison.bench.redis.set(key, "not ours")

    report = await comparison.verify().run([CHANNEL, "hall"])

    if kind == "counts":
        [flaw] = report.flaws
        assert (flaw.channel, flaw.message_timetoken) == (CHANNEL, MESSAGE)
        assert f"redis-cli DEL '{key}'" in flaw.problem
    else:
        assert key in report.failures[CHANNEL]
    assert [found.channel for found in report.discrepancies] == ["hall"]


async def test_a_sample_compares_a_part(comparison: ComparisonBench) -> None:
    """Fewer entries are read. Differences among them are found."""
    first = int(MESSAGE)
    for number in range(400):
        comparison.add(f"user{number}", at=first + number * 10**11)
    await comparison.catches_up()

    report = await comparison.verify(sample=0.2).run([CHANNEL])

    assert report.is_exact
    assert 0 < report.entries < 200
