"""PubNub lists the actions of a forgotten user until they are removed there: no difference."""

from collections.abc import Sequence

import pytest

from tests.bench.bench import KEYS, SETTLE_SECONDS
from tests.bench.comparison import MESSAGE, ComparisonBench
from tests.bench.replaying import backfill
from tests.histories import CHANNEL
from worker.applying.forgotten_users import FRESH_SECONDS
from worker.applying.user_forgetting import forget_users
from worker.domain.position import Range
from worker.domain.reconciliation import Limit
from worker.store.user_data import UserData
from worker.store.user_erasure import UserErasure

USERS = 130


async def refuse(comparison: ComparisonBench, *uuids: str) -> None:
    """Refuse users; every process knows it."""
    await comparison.bench.tables.refused_users.add(uuids)
    comparison.bench.clock.now += FRESH_SECONDS + 1


async def forget(comparison: ComparisonBench, *uuids: str) -> None:
    """Forget users; the wait passes at once."""
    bench = comparison.bench

    async def pause(seconds: float) -> None:
        bench.clock.now += seconds

    data = UserData(bench.redis, KEYS, uuids)
    erasure = UserErasure(bench.redis, KEYS, 86_400)
    refused = bench.tables.refused_users
    await forget_users(uuids, refused, data, erasure, SETTLE_SECONDS, pause)


async def count(comparison: ComparisonBench) -> int:
    """Return the count of the message."""
    counts = await comparison.bench.reader.get(CHANNEL, MESSAGE)
    return sum(counts.get("reaction", {}).values())


async def is_exact(comparison: ComparisonBench) -> bool:
    """Tell whether verify finds no difference."""
    report = await comparison.verify().run([CHANNEL])
    assert (report.unproven, report.failures) == (0, {})
    return report.is_exact


@pytest.mark.parametrize(
    "forgotten", [["user0"], ["user129"], ["user64", "user65"], [f"user{n}" for n in range(USERS)]]
)
async def test_a_forgotten_user_is_no_difference(
    comparison: ComparisonBench, forgotten: Sequence[str]
) -> None:
    """The newest, the oldest, or everybody: nothing else of a page proves less."""
    await comparison.knows(USERS)
    await forget(comparison, *forgotten)

    assert await is_exact(comparison)
    report = await comparison.reconcile().channel(CHANNEL, Range())
    assert (report.added, report.pruned, report.restored, report.unproven) == (0, 0, 0, 0)
    await backfill(comparison.bench).run([CHANNEL], Range())
    assert await count(comparison) == USERS - len(forgotten)
    assert await is_exact(comparison)


async def test_a_removal_of_another_user_is_proven_all_the_same(
    comparison: ComparisonBench,
) -> None:
    """The actions that bracket it may be those of forgotten users."""
    actions = await comparison.knows(5)
    await forget(comparison, "user0", "user1", "user3", "user4")
    comparison.lose_removals(actions, [2])

    report = await comparison.reconcile().channel(CHANNEL, Range())

    assert (report.pruned, report.unproven) == (1, 0)
    assert await count(comparison) == 0


async def test_what_is_left_of_a_user_is_pruned(comparison: ComparisonBench) -> None:
    """A command was interrupted after the request. The limit is for lists that may be wrong."""
    await comparison.knows(USERS)
    await refuse(comparison, "user7")

    report = await comparison.reconcile().channel(CHANNEL, Range())

    assert (report.pruned, report.unproven) == (1, 0)
    assert await count(comparison) == USERS - 1


@pytest.mark.parametrize("is_undone", [False, True])
async def test_a_request_between_two_passes(comparison: ComparisonBench, is_undone: bool) -> None:
    """A first pass that counted the user, and a second one that does not; or the other way."""
    await comparison.knows(USERS)
    refused = comparison.bench.tables.refused_users
    comparison.add("unheard")
    comparison.bench.emulator.state.advance(2 * SETTLE_SECONDS)
    if is_undone:
        await forget(comparison, "user7")

    async def meanwhile() -> None:
        if is_undone:
            await refused.remove(["user7"])
            comparison.bench.clock.now += FRESH_SECONDS + 1
        else:
            await forget(comparison, "user7", "unheard")

    comparison.meanwhile = meanwhile
    report = await comparison.verify().run([CHANNEL])

    assert {item.surplus for item in report.discrepancies} <= {0}
    comparison.meanwhile = None
    await comparison.reconcile().channel(CHANNEL, Range())
    assert await is_exact(comparison)
    assert await count(comparison) == (USERS + 1 if is_undone else USERS - 1)


async def test_an_undo_and_a_reconcile_bring_the_counts_back(comparison: ComparisonBench) -> None:
    """Exactly. Their tombstones are gone, too, so nothing bars them."""
    comparison.limit = Limit(0, 0)
    await comparison.knows(USERS)
    await forget(comparison, "user7", "user8")
    assert await count(comparison) == USERS - 2

    await comparison.bench.tables.refused_users.remove(["user7", "user8"])
    comparison.bench.clock.now += FRESH_SECONDS + 1
    report = await comparison.reconcile().channel(CHANNEL, Range())

    assert (report.added, report.pruned) == (2, 0)
    await comparison.expect_exact()
