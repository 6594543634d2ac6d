"""Events of many subscriptions are applied together; each caller gets the result."""

import asyncio
from collections import Counter
from typing import Any, cast

import pytest

from tests.bench.bench import KEYS, SETTLE_SECONDS, Bench
from tests.bench.waiting import LONGEST_SECONDS, wait_until_redis_fails
from tests.waiting import wait_until
from worker.domain.action import Added, Identity, Observed
from worker.domain.entry import Outcome
from worker.errors import RolledBackError, StaleError
from worker.live import group_commit
from worker.live.group_commit import GroupCommit
from worker.source.wire import Malformed


def reaction(user: str) -> list[Observed]:
    """Return one user's reaction."""
    at = "17600000002020754"
    return [Added(Identity("room", "17600000001728660", "reaction", "👍", user), at, at)]


class Held:
    """An applier that waits; it notes the sizes of groups, and cancellations."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        self.given: list[int] = []
        self.cut_off = 0
        self.release = asyncio.Event()
        apply = bench.applier.apply

        async def hold(decoded: Any, *args: Any) -> Counter[Outcome]:
            self.given.append(len(decoded))
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.cut_off += 1
                raise
            return await apply(decoded, *args)

        monkeypatch.setattr(bench.applier, "apply", hold)


async def bring(bench: Bench, commits: GroupCommit, users: str) -> list[asyncio.Task[None]]:
    """Bring one reaction for each user; return when all are brought."""
    tasks = [asyncio.create_task(commits.apply(reaction(user), bench.clock())) for user in users]
    await asyncio.sleep(0)  # every task makes its first step, which brings them
    return tasks


async def test_later_events_form_the_next_group(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No caller goes on before its group is applied."""
    applier, commits = Held(bench, monkeypatch), GroupCommit(bench.applier)
    first = await bring(bench, commits, "a")
    await wait_until(lambda: applier.given == [1])
    later = await bring(bench, commits, "bcd")
    assert not any(task.done() for task in first + later)

    applier.release.set()
    await asyncio.gather(*first, *later)

    assert applier.given == [1, 3]
    assert await bench.reader.get("room", "17600000001728660") == {"reaction": {"👍": 4}}


async def test_a_group_has_a_largest_size(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other events wait for the next group."""
    monkeypatch.setattr(group_commit, "GROUP_EVENTS", 2)
    applier, commits = Held(bench, monkeypatch), GroupCommit(bench.applier)
    applier.release.set()
    await asyncio.gather(*await bring(bench, commits, "abcde"))
    assert sum(applier.given) == 5
    assert max(applier.given) <= 2


async def test_only_stale_events_are_dropped(bench: Bench) -> None:
    """To read the others again would be a load, and may open gaps."""
    commits = GroupCommit(bench.applier)
    long_ago = bench.clock() - SETTLE_SECONDS - 1
    tasks = (commits.apply(reaction("a"), long_ago), commits.apply(reaction("b"), bench.clock()))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in results] == [StaleError, type(None)]
    assert await bench.reader.get("room", "17600000001728660") == {"reaction": {"👍": 1}}


async def test_a_malformed_item_is_quarantined_once(bench: Bench) -> None:
    """Also if other events of its group were stale; stale ones are read again."""
    commits = GroupCommit(bench.applier)
    long_ago = bench.clock() - SETTLE_SECONDS - 1
    stale = [*reaction("a"), Malformed("room", "stale", "{}")]
    fresh = [*reaction("b"), Malformed("room", "fresh", "{}")]

    await asyncio.gather(
        commits.apply(stale, long_ago),
        commits.apply(fresh, bench.clock()),
        return_exceptions=True,
    )

    letters = await cast("Any", bench.redis).xrange(KEYS.quarantine)
    assert [fields["reason"] for _, fields in letters] == ["fresh"]


async def test_events_that_grow_stale_are_dropped_alone(bench: Bench) -> None:
    """Redis is away meanwhile. Younger events are applied when Redis is back."""
    commits, waited = GroupCommit(bench.applier), bench.clock() - SETTLE_SECONDS + 10
    await bench.redis.config_set("maxmemory", "1")
    old = asyncio.create_task(commits.apply(reaction("a"), waited))
    young = asyncio.create_task(commits.apply(reaction("b"), bench.clock()))
    await wait_until_redis_fails()
    bench.clock.now += 20

    await asyncio.wait([old], timeout=LONGEST_SECONDS)
    assert isinstance(old.exception(), StaleError)
    assert not young.done()
    await bench.redis.config_set("maxmemory", "0")
    await young

    assert await bench.reader.get("room", "17600000001728660") == {"reaction": {"👍": 1}}


async def test_a_rollback_reaches_every_caller(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No subscription goes on as before."""
    commits = GroupCommit(bench.applier)

    async def forgets(*_: Any) -> Counter[Outcome]:
        raise RolledBackError("Redis went back")

    monkeypatch.setattr(bench.applier, "apply", forgets)
    results = await asyncio.gather(*await bring(bench, commits, "ab"), return_exceptions=True)
    assert [type(error) for error in results] == [RolledBackError, RolledBackError]


async def test_a_cancelled_caller_delays_no_other(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its events are applied, too."""
    applier, commits = Held(bench, monkeypatch), GroupCommit(bench.applier)
    [gone], later = await bring(bench, commits, "a"), await bring(bench, commits, "b")
    gone.cancel()
    await asyncio.wait([gone])
    applier.release.set()
    await asyncio.gather(*later)
    assert await bench.reader.get("room", "17600000001728660") == {"reaction": {"👍": 2}}


async def test_a_group_without_callers_is_cancelled(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends before its callers do, because they are about to close Redis."""
    applier, commits = Held(bench, monkeypatch), GroupCommit(bench.applier)
    tasks = await bring(bench, commits, "a") + await bring(bench, commits, "b")
    await wait_until(lambda: bool(applier.given))
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)

    assert applier.cut_off == 1
    applier.release.set()
    await asyncio.gather(*await bring(bench, commits, "c"))
    counts = await bench.reader.get("room", "17600000001728660")
    assert counts["reaction"]["👍"] >= 1


async def test_an_empty_answer_returns_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer of an idle poll waits for no group."""
    Held(bench, monkeypatch)
    await asyncio.wait_for(GroupCommit(bench.applier).apply([], bench.clock()), LONGEST_SECONDS)
