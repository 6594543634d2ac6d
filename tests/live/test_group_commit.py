"""What many subscriptions bring is applied together; each hears how it went."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from tests.bench.bench import SETTLE_SECONDS, Bench
from tests.bench.waiting import LONGEST_SECONDS, wait_until_redis_fails
from tests.source.scripted import wait_until
from worker.applying.apply import RolledBackError, StaleError
from worker.domain.action import Added, Identity, Observed
from worker.domain.entry import Outcome
from worker.live import group_commit
from worker.live.group_commit import GroupCommit


def reaction(user: str) -> list[Observed]:
    """Return one user's reaction."""
    at = "17600000002020754"
    return [Added(Identity("room", "17600000001728660", "reaction", "👍", user), at, at)]


class Held:
    """An applier that is held up; it remembers how many events it was given at a time, and how often it was cut off."""

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


async def bring(bench: Bench, it: GroupCommit, users: str) -> list[asyncio.Task[None]]:
    """Let a subscription bring each user's reaction; when this returns, all have."""
    tasks = [asyncio.create_task(it.apply(reaction(user), bench.clock())) for user in users]
    await asyncio.sleep(
        0
    )  # a task makes its first step before one that is asked for later, and brings with it
    return tasks


async def test_who_comes_meanwhile_is_applied_next(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All at once; nobody is told before it is done."""
    held, it = Held(bench, monkeypatch), GroupCommit(bench.applier)
    first = await bring(bench, it, "a")
    await wait_until(lambda: held.given == [1])
    others = await bring(bench, it, "bcd")
    assert not any(task.done() for task in first + others)

    held.release.set()
    await asyncio.gather(*first, *others)

    assert held.given == [1, 3]
    assert await bench.reader.get("room", "17600000001728660") == {"reaction": {"👍": 4}}


async def test_no_more_is_applied_at_once_than_bearable(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others wait for the next time."""
    monkeypatch.setattr(group_commit, "EVENT_BATCH", 2)
    held, it = Held(bench, monkeypatch), GroupCommit(bench.applier)
    held.release.set()
    await asyncio.gather(*await bring(bench, it, "abcde"))
    assert sum(held.given) == 5
    assert max(held.given) <= 2


async def test_only_what_waited_too_long_is_dropped(bench: Bench) -> None:
    """Who came with it goes on: to read it all again would be load of our own making, and may open gaps."""
    it = GroupCommit(bench.applier)
    long_ago = bench.clock() - SETTLE_SECONDS - 1
    both = (
        it.apply(reaction("a"), long_ago),
        it.apply(reaction("b"), bench.clock()),
    )
    told = await asyncio.gather(*both, return_exceptions=True)
    assert [type(error) for error in told] == [StaleError, type(None)]
    assert await bench.reader.get("room", "17600000001728660") == {"reaction": {"👍": 1}}


async def test_what_grows_old_while_redis_is_away_is_dropped_alone(bench: Bench) -> None:
    """The younger one is applied when Redis is back."""
    it, waited = GroupCommit(bench.applier), bench.clock() - SETTLE_SECONDS + 10
    await bench.redis.config_set("maxmemory", "1")
    old = asyncio.create_task(it.apply(reaction("a"), waited))
    young = asyncio.create_task(it.apply(reaction("b"), bench.clock()))
    await wait_until_redis_fails()
    bench.clock.now += 20

    await asyncio.wait([old], timeout=LONGEST_SECONDS)
    assert isinstance(old.exception(), StaleError)
    assert not young.done()
    await bench.redis.config_set("maxmemory", "0")
    await young

    assert await bench.reader.get("room", "17600000001728660") == {"reaction": {"👍": 1}}


async def test_all_hear_that_redis_went_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody goes on as if it had not."""
    it = GroupCommit(bench.applier)

    async def forgets(*_: Any) -> Counter[Outcome]:
        raise RolledBackError("Redis went back")

    monkeypatch.setattr(bench.applier, "apply", forgets)
    told = await asyncio.gather(*await bring(bench, it, "ab"), return_exceptions=True)
    assert [type(error) for error in told] == [RolledBackError, RolledBackError]


async def test_who_is_cancelled_keeps_nobody_waiting(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it brought is applied all the same."""
    held, it = Held(bench, monkeypatch), GroupCommit(bench.applier)
    [gone], others = await bring(bench, it, "a"), await bring(bench, it, "b")
    gone.cancel()
    await asyncio.wait([gone])
    held.release.set()
    await asyncio.gather(*others)
    assert await bench.reader.get("room", "17600000001728660") == {"reaction": {"👍": 2}}


async def test_what_nobody_waits_for_ends(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before whoever brought it has ended: Redis is about to be left."""
    held, it = Held(bench, monkeypatch), GroupCommit(bench.applier)
    both = await bring(bench, it, "a") + await bring(bench, it, "b")
    await wait_until(lambda: bool(held.given))
    for task in both:
        task.cancel()
    await asyncio.wait(both)

    assert held.cut_off == 1
    held.release.set()
    await asyncio.gather(*await bring(bench, it, "c"))
    counts = await bench.reader.get("room", "17600000001728660")
    assert counts["reaction"]["👍"] >= 1


async def test_nothing_takes_no_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle poll's answer waits for nobody."""
    Held(bench, monkeypatch)
    await asyncio.wait_for(GroupCommit(bench.applier).apply([], bench.clock()), LONGEST_SECONDS)
