"""Events of many subscriptions are applied together; each caller gets the result."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from msgspec.structs import replace
from prometheus_client import REGISTRY

from tests.bench.bench import KEYS, SETTLE_SECONDS, Bench
from tests.bench.waiting import LONGEST_SECONDS, wait_until_redis_fails
from tests.waiting import wait_until
from worker.domain.action import Added, Identity, Observed
from worker.domain.entry import Outcome
from worker.domain.position import Cursor
from worker.errors import CutOffError, RolledBackError, StaleError
from worker.live import group_commit
from worker.live.group_commit import GroupCommit
from worker.source.wire import Malformed
from worker.store.script_call import CursorSave

MESSAGE = "17600000001728660"


def reaction(user: str) -> list[Observed]:
    """Return one user's reaction."""
    at = "17600000002020754"
    return [Added(Identity("room", MESSAGE, "reaction", "👍", user), at, at)]


def save(name: str = "s") -> CursorSave:
    """Return what saves a subscription's cursor."""
    return CursorSave(name, Cursor("17600000002020754", 1))


class Held:
    """An applier that waits before each call; it notes the sizes of groups, and cancellations."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        self.given: list[int] = []
        self.cut_off = 0
        self._allowed = asyncio.Semaphore(0)
        apply = bench.applier.apply

        async def hold(decoded: Any, *args: Any, **options: Any) -> Counter[Outcome]:
            self.given.append(len(decoded))
            try:
                await self._allowed.acquire()
            except asyncio.CancelledError:
                self.cut_off += 1
                raise
            return await apply(decoded, *args, **options)

        monkeypatch.setattr(bench.applier, "apply", hold)

    def release(self, calls: int = 1_000) -> None:
        """Let so many calls go on."""
        for _ in range(calls):
            self._allowed.release()


async def bring(bench: Bench, commits: GroupCommit, users: str) -> list[asyncio.Task[None]]:
    """Bring one reaction for each user; return when all are brought."""
    return await brought(
        *(commits.apply(reaction(user), bench.clock(), save(user)) for user in users)
    )


async def brought(*calls: Any) -> list[asyncio.Task[None]]:
    """Return tasks of calls, each after its first step, which brings its events."""
    tasks = [asyncio.create_task(call) for call in calls]
    await asyncio.sleep(0)
    return tasks


@asynccontextmanager
async def one_group(bench: Bench, commits: GroupCommit, applier: Held) -> AsyncIterator[None]:
    """Let what the block brings be one group: another one is applied meanwhile.

    After the block the applier holds this group.
    """
    [first] = await brought(commits.apply([], bench.clock(), save("first")))
    assert applier.given == [0]
    yield
    applier.release(1)
    await first


async def count_of(bench: Bench) -> int:
    """Return how many reactions are counted."""
    counts = await bench.reader.get("room", MESSAGE)
    return counts["reaction"]["👍"]


async def test_later_events_form_the_next_group(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No caller goes on before its group is applied."""
    applier, commits = Held(bench, monkeypatch), GroupCommit(bench.applier)
    first = await bring(bench, commits, "a")
    await wait_until(lambda: applier.given == [1])
    later = await bring(bench, commits, "bcd")
    assert not any(task.done() for task in first + later)

    applier.release()
    await asyncio.gather(*first, *later)

    assert applier.given == [1, 3]
    assert await count_of(bench) == 4


async def test_an_event_of_the_future_makes_no_other_late(bench: Bench) -> None:
    """Anyone's clock may be ahead; the ages of the other events stay what they are."""
    (event,) = reaction("ana")
    now = str(int(time.time() * 10_000_000))
    events = [replace(event, published=at) for at in (now, "99999999999999999999")]
    before = lag_sum()

    await GroupCommit(bench.applier).apply(events, bench.clock(), save())

    assert lag_sum() - before < LONGEST_SECONDS


def lag_sum() -> float:
    """Return the sum of all ages that were observed."""
    value = REGISTRY.get_sample_value("tally_lag_seconds_sum")
    assert value is not None
    return value


async def test_a_group_has_a_largest_size(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other events wait for the next group."""
    monkeypatch.setattr(group_commit, "GROUP_EVENTS", 2)
    applier, commits = Held(bench, monkeypatch), GroupCommit(bench.applier)
    async with one_group(bench, commits, applier):
        tasks = await bring(bench, commits, "abcde")
    applier.release()
    await asyncio.gather(*tasks)
    assert applier.given == [0, 2, 2, 1]


async def test_each_caller_gets_its_cursor_saved(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one whose answer had no event."""
    applier, commits = Held(bench, monkeypatch), GroupCommit(bench.applier)
    saves, now = list(map(save, "abc")), bench.clock()
    decoded = [reaction("a"), [], reaction("c")]
    async with one_group(bench, commits, applier):
        calls = zip(decoded, saves, strict=True)
        tasks = await brought(*(commits.apply(events, now, each) for events, each in calls))
    applier.release()
    await asyncio.gather(*tasks)

    assert applier.given == [0, 2]
    assert [each.number for each in saves] == [1, 1, 1]
    assert await bench.tables.cursors.held("abc") == {"a": 1, "b": 1, "c": 1}


async def test_only_stale_events_are_dropped(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """To read the others again would be a load, and may open gaps."""
    applier, commits = Held(bench, monkeypatch), GroupCommit(bench.applier)
    long_ago = bench.clock() - SETTLE_SECONDS - 1
    stale, fresh = save("stale"), save("fresh")
    async with one_group(bench, commits, applier):
        tasks = await brought(
            commits.apply(reaction("a"), long_ago, stale),
            commits.apply(reaction("b"), bench.clock(), fresh),
        )
    applier.release()
    results = await asyncio.gather(*tasks, return_exceptions=True)

    assert [type(error) for error in results] == [StaleError, type(None)]
    assert await count_of(bench) == 1
    assert (stale.number, fresh.number) == (None, 1)


async def test_a_malformed_item_is_quarantined_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if other events of its group were stale; stale ones are read again."""
    applier, commits = Held(bench, monkeypatch), GroupCommit(bench.applier)
    long_ago = bench.clock() - SETTLE_SECONDS - 1
    stale = [*reaction("a"), Malformed("room", "stale", "{}")]
    fresh = [*reaction("b"), Malformed("room", "fresh", "{}")]
    async with one_group(bench, commits, applier):
        tasks = await brought(
            commits.apply(stale, long_ago, save("stale")),
            commits.apply(fresh, bench.clock(), save("fresh")),
        )
    applier.release()
    await asyncio.wait(tasks)

    letters = await cast("Any", bench.redis).xrange(KEYS.quarantine)
    assert [fields["reason"] for _, fields in letters] == ["fresh"]


async def test_events_that_grow_stale_are_dropped_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis is away meanwhile. Younger events are applied when Redis is back."""
    applier, commits = Held(bench, monkeypatch), GroupCommit(bench.applier)
    waited = bench.clock() - SETTLE_SECONDS + 10
    async with one_group(bench, commits, applier):
        [old, young] = await brought(
            commits.apply(reaction("a"), waited, save("old")),
            commits.apply(reaction("b"), bench.clock(), save("young")),
        )
    await bench.redis.config_set("maxmemory", "1")
    applier.release()
    await wait_until_redis_fails()
    bench.clock.now += 20

    await asyncio.wait([old], timeout=LONGEST_SECONDS)
    assert isinstance(old.exception(), StaleError)
    assert not young.done()
    await bench.redis.config_set("maxmemory", "0")
    await young

    assert await count_of(bench) == 1


async def test_a_rollback_reaches_every_caller(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No subscription goes on as before."""

    async def forgets(decoded: Any, *_: Any, **__: Any) -> Counter[Outcome]:
        if decoded:
            raise RolledBackError("Redis went back")
        return Counter()

    monkeypatch.setattr(bench.applier, "apply", forgets)
    applier, commits = Held(bench, monkeypatch), GroupCommit(bench.applier)
    async with one_group(bench, commits, applier):
        tasks = await bring(bench, commits, "ab")
    applier.release()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in results] == [RolledBackError, RolledBackError]
    assert applier.given == [0, 2]


@pytest.mark.parametrize("is_applying", [False, True])
async def test_a_first_caller_that_is_cancelled_cuts_its_group_off(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, is_applying: bool
) -> None:
    """The others read theirs again: nobody knows what of it is applied. The next group goes on."""
    applier, commits = Held(bench, monkeypatch), GroupCommit(bench.applier)
    async with one_group(bench, commits, applier):
        [gone, *others] = await bring(bench, commits, "abc")
        if not is_applying:
            gone.cancel()
            await asyncio.wait([gone])
            others += await bring(bench, commits, "d")
    if is_applying:
        gone.cancel()
        await asyncio.wait([gone])
        others += await bring(bench, commits, "d")
    applier.release()
    results = await asyncio.gather(*others, return_exceptions=True)

    assert gone.cancelled()
    assert [type(result) for result in results] == [CutOffError, CutOffError, type(None)]
    assert await count_of(bench) == 1
    assert await bench.tables.cursors.held("abcd") == {"a": 0, "b": 0, "c": 0, "d": 1}


async def test_an_answer_without_events_is_never_stale(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ordinary messages are nothing that could be applied too late."""
    applier, commits = Held(bench, monkeypatch), GroupCommit(bench.applier)
    long_ago = bench.clock() - SETTLE_SECONDS - 1
    idle, fresh = save("idle"), save("fresh")
    async with one_group(bench, commits, applier):
        tasks = await brought(
            commits.apply([], long_ago, idle),
            commits.apply(reaction("b"), bench.clock(), fresh),
        )
    applier.release()
    await asyncio.gather(*tasks)

    assert (idle.number, fresh.number) == (1, 1)


async def test_another_caller_that_is_cancelled_delays_none(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its events are applied, too."""
    applier, commits = Held(bench, monkeypatch), GroupCommit(bench.applier)
    async with one_group(bench, commits, applier):
        [first, gone] = await bring(bench, commits, "ab")
    gone.cancel()
    await asyncio.wait([gone])
    applier.release()
    await first
    assert await count_of(bench) == 2


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
    applier.release()
    await asyncio.gather(*await bring(bench, commits, "c"))
    assert await count_of(bench) == 1
