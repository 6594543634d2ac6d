"""The health pages say whether a worker lives, and what it waits for."""

import json
from collections.abc import Sequence
from random import Random
from typing import Any, cast

import pytest

from tests.bench.bench import Bench
from tests.bench.comparison import ComparisonBench
from tests.bench.subscriptions import MESSAGE, running_subscriptions
from tests.cursors import save_cursor
from tests.waiting import wait_until
from worker.domain.position import Cursor
from worker.errors import ExitCode, ForbiddenError, PubNubError
from worker.live.polling import State
from worker.live.subscriptions import Subscriptions
from worker.reconciliation.backfills_left import BackfillsLeft
from worker.reconciliation.rounds import Rounds
from worker.reconciliation.schedule import Schedule
from worker.service.backlog import BacklogReader
from worker.service.doctor import Deadline, Finding, examine_rounds
from worker.service.health import Health, measure_subscriptions
from worker.telemetry import metrics
from worker.web.pages import Page

MINUTE = 60.0


def health(bench: Bench, subscriptions: Subscriptions, backfills: BackfillsLeft) -> Health:
    """Return the pages of these subscriptions."""
    return Health(
        subscriptions,
        backfills,
        rounds(bench),
        BacklogReader(bench.tables, bench.clock),
        bench.clock,
        dict,
    )


def rounds(bench: Bench) -> Rounds:
    """Return rounds that none has begun of."""
    reconciler = ComparisonBench(bench).reconcile()
    schedule = Schedule(3600, 86_400, 604_800, 20)
    return Rounds(
        reconciler, cast("Any", None), bench.tables, bench.client.time, schedule, Random(1)
    )


def wrong(page: Page) -> set[str]:
    """Return the names of the checks that fail."""
    checks: dict[str, Any] = json.loads(page.body)["checks"]
    return {name for name, check in checks.items() if not check["ok"]}


async def test_a_stuck_poll_fails_livez(bench: Bench) -> None:
    """PubNub neither answers nor closes the connection."""
    async with running_subscriptions(bench, "ab") as subscriptions:
        pages = health(bench, subscriptions, BackfillsLeft())
        bench.clock.now += 6 * MINUTE
        assert wrong(await pages.livez()) == set()
        bench.clock.now += 2 * MINUTE
        assert wrong(await pages.livez()) == {"loops"}


@pytest.mark.parametrize("minutes", [9, 10])
async def test_timely_answers_keep_readyz(bench: Bench, minutes: int) -> None:
    """An idle poll that was cut takes 560 s. The first poll after a restart may take as long."""
    async with running_subscriptions(bench, "ab"):
        pass
    async with running_subscriptions(bench, "ab") as subscriptions:
        pages = health(bench, subscriptions, BackfillsLeft())
        assert wrong(await pages.readyz()) == {"backfill"}
        bench.clock.now += minutes * MINUTE
        assert wrong(await pages.readyz()) == {"backfill"} | (
            {"subscriptions"} if minutes > 9 else set()
        )


async def test_only_a_lasting_failure_fails_readyz(bench: Bench) -> None:
    """Each of the subscriptions had an answer a moment ago. A short drop is nobody's business.

    After the outage the polls are idle again. Nothing happens, and yet all is said to be well.
    """

    def states() -> set[State]:
        return {item.polling.state for item in subscriptions.current}

    async with running_subscriptions(bench, "abcd") as subscriptions:
        pages = health(bench, subscriptions, BackfillsLeft())
        bench.emulator.state.set_outage("server_error")
        await wait_until(lambda: states() == {State.UNREACHABLE})
        bench.clock.now += MINUTE - 5
        assert wrong(await pages.readyz()) == {"backfill"}
        bench.clock.now += 10
        assert wrong(await pages.readyz()) == {"backfill", "subscriptions"}
        assert (
            b"2 of 2 have no answer of PubNub's: PubNub, subscribe" in (await pages.readyz()).body
        )
        assert wrong(await pages.livez()) == set()

        bench.emulator.state.set_outage(None)
        await wait_until(lambda: states() == {State.FOLLOWING})
        assert wrong(await pages.readyz()) == {"backfill"}
        assert bench.emulator.waiting == 2


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_polls_that_are_always_cut_fail_readyz(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, *, is_restarted: bool
) -> None:
    """Each handshake after it is answered. One cut is nobody's business: the next poll waits."""
    monkeypatch.setattr("worker.source.backoff.LONGEST_SECONDS", 0.01)

    def state() -> State:
        return subscriptions.current[0].polling.state

    if is_restarted:
        async with running_subscriptions(bench, "ab"):
            pass
    async with running_subscriptions(bench, "ab") as subscriptions:
        pages = health(bench, subscriptions, BackfillsLeft())
        for _ in range(3):
            assert wrong(await pages.readyz()) == {"backfill"}
            bench.clock.now += 200
            bench.emulator.state.set_outage("server_error")
            await wait_until(lambda: state() is State.UNREACHABLE)
            bench.emulator.state.set_outage(None)
            await wait_until(lambda: state() is State.FOLLOWING)
        assert wrong(await pages.readyz()) == {"backfill", "subscriptions"}
        assert b"1 of 1 have no answer of PubNub's" in (await pages.readyz()).body

        bench.emulator.state.add("a", MESSAGE, "reaction", "👍", "ana")
        reachability = subscriptions.current[0].polling.poller.reachability
        await wait_until(lambda: reachability.waiting_since == bench.clock.now)
        assert wrong(await pages.readyz()) == {"backfill"}


async def test_a_stale_cursor_fails_readyz(bench: Bench) -> None:
    """The cursor is of yesterday. The first answer will ask for a backfill."""
    async with running_subscriptions(bench, "ab") as subscriptions:
        (yesterday,) = subscriptions.current
    await save_cursor(
        bench.tables.cursors, yesterday.id, Cursor("17600000000000000", 1), age=lambda: 86_400
    )
    backfills = BackfillsLeft()
    backfills.has_started = True
    async with running_subscriptions(bench, "ab", begun=False) as subscriptions:
        pages = health(bench, subscriptions, backfills)
        await wait_until(lambda: bench.emulator.waiting == 1)
        assert wrong(await pages.readyz()) == {"backfill"}
        bench.emulator.state.add("a", MESSAGE, "reaction", "👍", "ana")
        await wait_until(lambda: subscriptions.current[0].has_begun)
        assert wrong(await pages.readyz()) == set()


def test_few_failing_channels_hold_nobody_up() -> None:
    """One of twenty may fail, and PubNub may refuse any. A tenth that fails is told."""
    backfills = BackfillsLeft()
    backfills.has_started = True

    def problem() -> str | None:
        return backfills.problem

    for number in range(20):
        backfills.add(f"room{number:02d}")
    backfills.failed("room00", forbidden())
    for number in range(4, 20):
        backfills.done(f"room{number:02d}")
    assert problem() == ("the first backfill of 'room01', 'room02', 'room03' is not done yet")

    backfills.failed("room01", PubNubError("PubNub answers 500"))
    backfills.failed("room02", PubNubError("PubNub answers 500"))
    backfills.done("room03")
    assert problem() is None

    backfills.add("room03")
    backfills.failed("room03", PubNubError("PubNub answers 500"))
    assert problem() == (
        "the first backfill of 'room01', 'room02', 'room03' fails: PubNub answers 500"
    )


def forbidden() -> ForbiddenError:
    """Return an answer 403."""
    return ForbiddenError("no", channels=frozenset(), groups=frozenset())


async def test_doctor_says_that_rounds_cannot_be_kept(bench: Bench) -> None:
    """Two thousand channels need more than a request in ten seconds."""
    await bench.tables.channels.add([f"room{number}" for number in range(2000)])

    kept = await rounds_at(bench, 20)
    late = await rounds_at(bench, 0.001)

    assert kept.exit_code is ExitCode.DONE
    assert late.exit_code is ExitCode.USAGE
    assert "Raise TALLY_HISTORY_RATE" in late.text


async def test_rounds_before_the_first_start_are_of_the_configured_channels(bench: Bench) -> None:
    """None of them was seen yet. Those that were are counted once."""
    await bench.tables.channels.add(["room0", "elsewhere"])
    configured = [f"room{number}" for number in range(2000)]

    kept = await rounds_at(bench, 20, configured)
    late = await rounds_at(bench, 0.001, configured)

    assert kept.exit_code is ExitCode.DONE
    assert kept.text.startswith("2001 channels, ")
    assert late.exit_code is ExitCode.USAGE


async def rounds_at(bench: Bench, rate: float, configured: Sequence[str] = ()) -> Finding:
    """Return what a doctor says of rounds at so many requests a second."""
    schedule = Schedule(3600, 86_400, 604_800, rate)
    return await examine_rounds(bench.tables, configured, schedule, Deadline())


async def test_workers_of_the_same_names_have_the_same_digest(bench: Bench) -> None:
    """In any order, and divided in any way. One name more, and it differs."""

    async def digest(names: str, size: int = 2) -> float:
        async with running_subscriptions(bench, names, size) as subscriptions:
            measure_subscriptions(subscriptions.current, bench.clock())
        return float(metrics.names_digest._value.get())

    whole = await digest("abc")
    assert await digest("cba", 1) == whole
    assert await digest("ab") != whole


async def test_numbered_lists_have_digests_of_their_own(bench: Bench) -> None:
    """Workers that divide numbered channels have lists of equal length, and similar names."""
    digests = []
    for begin in range(0, 40, 2):
        names = [f"room{begin}", f"room{begin + 1}"]
        async with running_subscriptions(bench, names) as subscriptions:
            measure_subscriptions(subscriptions.current, bench.clock())
        digests.append(metrics.names_digest._value.get())
        assert metrics.names._value.get() == 2

    assert len(set(digests)) == len(digests)
    assert all(float(int(digest)) == digest < 2**53 for digest in digests)
