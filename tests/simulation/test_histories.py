"""Histories that once went wrong, or would: each ends exact, and would not without what it is there to prove."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

import pytest

from tests.simulation.history import Outcome, played
from tests.simulation.oracle import BrokenError
from tests.simulation.world import DAY_TICKS, HOUR, KEYS, SETTLE_SECONDS, Subscriptions, World
from worker.applying.apply import Applier
from worker.domain.position import Cursor
from worker.domain.reconciliation import Limit
from worker.emulator import OUTAGE_KINDS, Page, Window
from worker.live import answer_handler
from worker.live.gaps import Gaps
from worker.live.resume_point import SavedPosition
from worker.live.subscription import Subscription
from worker.reconciliation import corrections, rounds, second_pass
from worker.reconciliation.repair_queue import RepairQueue
from worker.store.cursors import Cursors
from worker.store.pending_repairs import GapCause
from worker.store.rollback_detector import RollbackDetector

if TYPE_CHECKING:
    from worker.emulator.cache import Message

MESSAGE: Final = "17500000000000000"
ROOM, HALL = "r.a", "r.b"
ONE: Final = Subscriptions((ROOM,))
SOON: Final = 3 * SETTLE_SECONDS + 20
"""Seconds by which a debt is repaid where nothing stands in the way, and before any round begins."""

Script = Callable[[World], Coroutine[Any, Any, None]]
Without = Callable[[], AbstractContextManager[Any]]


def ends(script: Script) -> list[str]:
    """Play the script, an hour before the next round; return what differs, or broke, at its end."""
    outcome = Outcome(0)
    found: list[str] = []

    async def play(world: World) -> None:
        await script(world)
        found.extend(world.differences())

    world = played(script.__name__, play, {}, outcome, after_the_hour=10, tells=True)
    told = "\n".join(world.story[-60:])
    return [f"{line}\n{told}" for line in [*found, *filter(None, [outcome.broken])]]


def expect(script: Script, without: Without) -> None:
    """Expect the script to end exact, and not to without its protection."""
    assert ends(script) == []
    with without():
        missed = ends(script)
    assert missed, "it is as right without what it is to prove"
    assert not [line for line in missed if _is_a_slip(line)], "it ended before it could be wrong"


def _is_a_slip(line: str) -> bool:
    """Tell whether a history fails by anything but what it is to prove: a wrong count, or a broken promise."""
    first = line.partition("\n")[0]
    return "Error: " in first and (
        not first.startswith(BrokenError.__name__) or "a worker failed" in first
    )


@contextmanager
def without_owing(only: GapCause | None = None) -> Iterator[None]:
    """Have gaps forgotten, all or those of one cause."""
    real = Gaps.owe

    async def owe(
        self: Gaps, channels: Any, gap: GapCause, cursor: Any, *, is_new: bool = True
    ) -> None:
        if only and gap is not only:
            await real(self, channels, gap, cursor, is_new=is_new)

    with patch.object(Gaps, "owe", owe):
        yield


@contextmanager
def without_lineage() -> Iterator[None]:
    """Have nobody notice that Redis went back."""

    async def greet(self: RollbackDetector, connection: object) -> None:
        pass

    with (
        patch.object(RollbackDetector, "check_server", greet),
        patch.object(RollbackDetector, "suspect", lambda *_: None),
        patch.object(RollbackDetector, "observe", lambda *_: True),
        patch.object(SavedPosition, "save", _save_anyhow),
    ):
        yield


async def _save_anyhow(self: SavedPosition, cursor: Cursor, covered_until: float) -> None:
    await self._cursors.save(self.subscription, cursor, 0)
    self.cursor, self.covered_until = cursor, covered_until


def without_debts() -> AbstractContextManager[Any]:
    """Have nothing repaid but by the rounds."""

    async def run(self: RepairQueue) -> None:
        await asyncio.Event().wait()

    return patch.object(RepairQueue, "run", run)


def without_rounds() -> AbstractContextManager[Any]:
    """Have no rounds."""

    async def run(self: rounds.Rounds) -> None:
        await asyncio.Event().wait()

    return patch.object(rounds.Rounds, "run", run)


# ------------------------------------------------------------------------------------------------ kills and cursors


def test_a_kill_between_the_first_cursor_and_the_end_of_backfill() -> None:
    """What came before the first start was asked for before the cursor was saved, so the next process reads it."""

    async def script(world: World) -> None:
        for user in ("ana", "ben", "cy"):
            world.add(ROOM, MESSAGE, "+", user)
        await asyncio.sleep(30)
        world.start("one", ONE)
        world.kill_at("one", "save_cursor")
        await asyncio.sleep(5)
        assert world.tally.kills == 1
        world.start("one")
        await asyncio.sleep(SOON)

    expect(script, without_owing)


def test_a_kill_after_a_full_answer_was_committed() -> None:
    """The overflow was marked before its cursor was saved."""

    async def script(world: World) -> None:
        world.start("one", ONE)
        await asyncio.sleep(SOON)
        world.kill("one")
        world.add(ROOM, MESSAGE, "+", "ana")
        world.burst(ROOM, 120)
        await asyncio.sleep(10)
        world.start("one")
        world.kill_at("one", "save_cursor")
        await asyncio.sleep(10)
        assert world.tally.kills == 2
        world.start("one")
        await asyncio.sleep(SOON)

    expect(script, lambda: patch.object(answer_handler, "FULL_ANSWER", 10**9))


@pytest.mark.parametrize("is_running", [True, False])
def test_a_channel_that_joins_a_subscription(is_running: bool) -> None:
    """Its cursor never covered it: what happened before is owed, whether it joins at a restart or meanwhile."""

    async def script(world: World) -> None:
        world.channels = (ROOM, HALL)
        ana, both = world.add(HALL, MESSAGE, "+", "ana"), Subscriptions((ROOM, HALL))
        world.start("one", both)
        await asyncio.sleep(SOON)
        world.reload("one", ONE)
        await asyncio.sleep(SOON)
        assert ana
        world.remove(HALL, ana)
        world.add(HALL, MESSAGE, "+", "ben")
        await asyncio.sleep(60)
        if is_running:
            world.reload("one", both)
        else:
            world.stop("one")
            await asyncio.sleep(5)
            world.start("one", both)
        await asyncio.sleep(SOON)

    expect(script, without_owing)


@pytest.mark.parametrize("is_running", [True, False])
def test_a_channel_that_changes_its_subscription(is_running: bool) -> None:
    """It goes on from where it was, and nothing need be owed: what happens while it changes is not missed."""

    async def script(world: World) -> None:
        world.channels = (ROOM, HALL)
        world.start("one", Subscriptions((ROOM, HALL)))
        await asyncio.sleep(SOON)
        world.add(HALL, MESSAGE, "+", "ana")
        if is_running:
            world.reload("one", Subscriptions((HALL,)))
            world.add(HALL, MESSAGE, "-", "ana")
        else:
            world.kill("one")
            world.add(HALL, MESSAGE, "-", "ana")
            world.start("one", Subscriptions((HALL,)))
        await asyncio.sleep(5)
        if owing := world.owing():
            raise BrokenError(f"owes {owing}")

    def without_places() -> AbstractContextManager[Any]:
        """Have everybody begin anew."""
        return patch.object(Subscription, "resume_point", None)

    def without_followed() -> AbstractContextManager[Any]:
        async def followed(self: Cursors) -> list[Any]:
            return []

        return patch.object(Cursors, "followed", followed)

    expect(script, without_places if is_running else without_followed)


@pytest.mark.parametrize("command", ["hset", "expire", "hgetall", "time", "save_cursor"])
def test_a_change_of_the_list_that_meets_an_outage(command: str) -> None:
    """However long Redis is away, and since which step: a cursor taken over is as old as it is, and its gap is owed."""

    async def script(world: World) -> None:
        world.channels = (ROOM, HALL)
        ana = world.add(HALL, MESSAGE, "+", "ana")
        world.start("one", Subscriptions((ROOM, HALL)))
        await asyncio.sleep(SOON)
        world.reload("one", Subscriptions((HALL,)))
        world.cut_at("one", command, HOUR / 2)
        await asyncio.sleep(10)
        assert world.server.is_down
        assert ana
        world.remove(HALL, ana)
        await asyncio.sleep(HOUR / 2 + 300 + SOON)

    expect(script, lambda: without_owing(GapCause.STALE_CURSOR))


def test_a_cursor_older_than_the_cache() -> None:
    """What was removed while nobody listened for an hour is gone from the cache and from the list."""

    async def script(world: World) -> None:
        ana = world.add(ROOM, MESSAGE, "+", "ana")
        world.start("one", ONE)
        await asyncio.sleep(SOON)
        world.kill("one")
        assert ana
        world.remove(ROOM, ana)
        await asyncio.sleep(HOUR / 2)
        world.start("one")
        await asyncio.sleep(300 + SOON)  # the first answer comes when the poll has been idle

    expect(script, lambda: without_owing(GapCause.STALE_CURSOR))


def test_a_channel_back_from_403() -> None:
    """What happened while it was refused is owed when it comes back."""

    async def script(world: World) -> None:
        world.channels = (ROOM, HALL)
        ana = world.add(ROOM, MESSAGE, "+", "ana")
        world.start("one", Subscriptions((ROOM, HALL)))
        await asyncio.sleep(SOON)
        world.forbid(ROOM, 400)
        await asyncio.sleep(100)
        assert ana
        world.remove(ROOM, ana)
        world.add(ROOM, MESSAGE, "+", "ben")
        world.burst(HALL, 3)
        await asyncio.sleep(100)
        world.burst(HALL, 3)
        await asyncio.sleep(200 + SOON)
        world.burst(ROOM, 1)
        await asyncio.sleep(300 + SOON)

    expect(script, lambda: without_owing(GapCause.FORBIDDEN))


def test_a_backfill_asked_for_just_when_one_ends() -> None:
    """The place is deleted, the asking written, and only then does the one that ended look for more: it is there."""

    async def script(world: World) -> None:
        world.add(ROOM, MESSAGE, "+", "ana")
        world.start("one", ONE)
        await asyncio.sleep(SOON)
        machine = world.processes["one"].machine
        overflows = iter((1,))

        def asks_again(done: str) -> None:
            if done == "end_progress" and next(overflows, None):
                world.server.keyspace.hset(
                    KEYS.progress(ROOM), "again", str(world.state.time.now())
                )

        machine.on_effect = asks_again
        world.burst(ROOM, 110)
        await asyncio.sleep(SOON)
        if owing := world.owing():
            raise BrokenError(f"still owes {owing}")

    assert ends(script) == []


# ------------------------------------------------------------------------------------------------- lost, late, twice


def test_a_removal_lost_a_second_after_its_addition() -> None:
    """Only the list can tell, and only the next round asks."""

    async def script(world: World) -> None:
        world.start("one", ONE)
        await asyncio.sleep(SOON)
        ana = world.add(ROOM, MESSAGE, "+", "ana")
        await asyncio.sleep(1)
        assert ana
        world.remove(ROOM, ana, published=False)
        await asyncio.sleep(10)
        assert world.differences()
        await asyncio.sleep(HOUR + SOON)

    expect(script, without_rounds)


def test_an_addition_that_comes_after_its_removal_and_the_handshake() -> None:
    """Nobody saw the removal, so nothing bars the addition; but the first start is owed, and repaid by the list."""

    async def script(world: World) -> None:
        with _held_back(world) as release:
            ana = world.add(ROOM, MESSAGE, "+", "ana")
        assert ana
        world.remove(ROOM, ana)
        await asyncio.sleep(20)
        world.start("one", ONE)
        await asyncio.sleep(2)
        release()
        await asyncio.sleep(2)
        assert world.differences()
        await asyncio.sleep(SOON)

    expect(script, without_debts)


def test_a_lost_removal_of_a_month_old_action() -> None:
    """The rounds come to every age in turn."""
    following = replace(ONE, full_seconds=2 * HOUR)

    async def script(world: World) -> None:
        month = world.state.time.now() - 30 * DAY_TICKS
        ana = world.add(ROOM, MESSAGE, "+", "ana", at=month, published=False)
        world.add(ROOM, MESSAGE, "+", "ben", at=month + 2 * DAY_TICKS, published=False)
        world.start("one", following)
        await asyncio.sleep(SOON)
        assert ana
        world.remove(ROOM, ana, published=False)
        await asyncio.sleep(5 * HOUR)  # a whole turn, wherever in one this began

    expect(script, lambda: patch.object(rounds.Schedule, "piece", lambda *_: None))


def test_a_channel_of_three_heals_without_force() -> None:
    """A third is more than the limit, but one is less than the floor."""

    async def script(world: World) -> None:
        ana, _, _ = (world.add(ROOM, MESSAGE, "+", user) for user in ("ana", "ben", "cy"))
        world.start("one", ONE)
        await asyncio.sleep(SOON)
        assert ana
        world.remove(ROOM, ana, published=False)
        await asyncio.sleep(SETTLE_SECONDS + 1)
        await world.reconcile([ROOM], ONE)

    def without_floor(limit: Limit, losses: int, entries: int) -> bool:
        return losses > limit.fraction * entries

    expect(script, lambda: patch.object(Limit, "forbids", without_floor))


def test_two_actions_of_one_identity_and_the_newer_is_removed() -> None:
    """The older one still counts; the removal of the newer bars it, until it has been listed twice."""

    async def script(world: World) -> None:
        world.start("one", ONE)
        await asyncio.sleep(SOON)
        world.state.faults.replace({"twin": 1.0})
        newer = world.add(ROOM, MESSAGE, "+", "ana")
        world.state.faults.replace({})
        await asyncio.sleep(5)
        assert newer
        world.remove(ROOM, newer)
        await asyncio.sleep(SETTLE_SECONDS + 5)
        await world.reconcile([ROOM], ONE)

    expect(script, lambda: patch.object(corrections, "_repair", lambda *_: None))


def test_the_second_look_loses_its_witnesses() -> None:
    """What bracketed the candidate is removed between the looks: nothing is proven, and it is looked at again."""

    async def script(world: World) -> None:
        actions = [world.add(ROOM, MESSAGE, "+", user) for user in ("ana", "ben", "cy")]
        world.start("one", ONE)
        await asyncio.sleep(SOON)
        below, lost, above = actions
        assert below
        assert lost
        assert above
        world.remove(ROOM, lost, published=False)
        await asyncio.sleep(SETTLE_SECONDS + 1)
        world.later(SETTLE_SECONDS / 2, world.remove, ROOM, above)
        world.later(SETTLE_SECONDS / 2, world.remove, ROOM, below)
        (report,) = await world.reconcile([ROOM], ONE)
        assert (report.pruned, report.unproven) == (0, 1)
        await asyncio.sleep(HOUR + SOON)

    expect(script, lambda: patch.object(second_pass, "_nothing_brackets", lambda *_, **__: False))


def test_a_lost_removal_that_shares_its_timetoken_with_the_oldest() -> None:
    """Nothing is strictly below it; the end of the list is witness enough."""

    async def script(world: World) -> None:
        at = world.state.time.now() - DAY_TICKS
        ana, _ = (
            world.add(ROOM, MESSAGE, "+", user, at=at, published=False) for user in ("ana", "ben")
        )
        world.add(ROOM, MESSAGE, "+", "cy", at=at + 20_000_000, published=False)
        world.start("one", ONE)
        await asyncio.sleep(SOON)
        assert ana
        world.remove(ROOM, ana, published=False)
        await asyncio.sleep(SETTLE_SECONDS + 1)
        (report,) = await world.reconcile([ROOM], ONE)
        assert (report.pruned, report.unproven) == (1, 0)

    assert ends(script) == []


# ------------------------------------------------------------------------------------------------- machines and Redis


def test_a_page_held_for_two_hours_by_a_suspended_machine() -> None:
    """The page lists what was removed meanwhile, and the tombstone is gone: it is dropped, and read again."""

    async def script(world: World) -> None:
        ana = world.add(ROOM, MESSAGE, "+", "ana")
        world.start("two", ONE)
        await asyncio.sleep(SOON)
        world.kill("two")
        world.burst(ROOM, 101)
        with _listing(world, lambda: world.suspend("one", 2 * HOUR)):
            world.start("one", ONE)  # the answer is full, so it asks for a backfill
            await asyncio.sleep(2)
        assert world.processes["one"].machine.is_suspended
        world.start("two")
        await asyncio.sleep(20)
        assert ana
        world.remove(ROOM, ana)
        await asyncio.sleep(2 * HOUR - 25)
        for _ in range(60):  # at no time is it counted again
            await asyncio.sleep(0.2)
            if world.differences():
                raise BrokenError("counted again")

    expect(script, _without_staleness)


def _without_staleness() -> AbstractContextManager[Any]:
    real = Applier.__init__

    def made(self: Applier, store: Any, tables: Any, retry: Any, _settle_seconds: float) -> None:
        real(self, store, tables, retry, 1e9)

    return patch.object(Applier, "__init__", made)


def test_a_failover_under_a_running_worker() -> None:
    """The replica lacks some seconds: whatever may have been in them is owed."""

    async def script(world: World) -> None:
        ana = world.add(ROOM, MESSAGE, "+", "ana")
        world.start("one", ONE)
        await asyncio.sleep(SOON)
        world.fail_over(10)
        assert ana
        world.remove(ROOM, ana)
        world.add(ROOM, MESSAGE, "+", "ben")
        await asyncio.sleep(10 + SOON)

    expect(script, without_lineage)


def test_a_failover_brings_back_a_backfill_that_had_ended() -> None:
    """Its place is there again, and somebody is at it: it does not stay for ever."""

    async def script(world: World) -> None:
        world.add(ROOM, MESSAGE, "+", "ana")
        world.start("one", ONE)
        await asyncio.sleep(0.2)
        world.fail_over(3)
        assert world.owing()
        await asyncio.sleep(3 + SOON)
        if owing := world.owing():
            raise BrokenError(f"still owes {owing}")

    assert ends(script) == []


def test_an_hour_old_copy_of_redis() -> None:
    """It is put back under a running worker: every channel is owed, before anything is written."""

    async def script(world: World) -> None:
        world.start("one", ONE)
        ana = world.add(ROOM, MESSAGE, "+", "ana")
        await asyncio.sleep(SOON)
        copied = world.copy()
        assert ana
        world.remove(ROOM, ana)
        world.add(ROOM, MESSAGE, "-", "ben")
        await asyncio.sleep(HOUR + 5)
        world.put_back(copied, "is an hour old")
        await asyncio.sleep(SOON)

    expect(script, without_lineage)


def test_a_429_of_the_clock_is_respected() -> None:
    """PubNub's clock is asked outside the budget, and no more often than PubNub wants."""

    async def script(world: World) -> None:
        world.add(ROOM, MESSAGE, "+", "ana")
        world.start("one", ONE)
        await asyncio.sleep(5)
        world.break_pubnub("throttle", 300)
        before = world.pubnub.requests
        await asyncio.sleep(300)
        assert world.pubnub.requests - before < 300
        await asyncio.sleep(SOON)

    assert ends(script) == []


@pytest.mark.parametrize("command", ["owe", "hset", "sadd", "apply", "save_cursor", "end_progress"])
def test_a_kill_after_any_command_of_the_first_start(command: str) -> None:
    """Wherever the first start is cut off, the second one makes it whole."""

    async def script(world: World) -> None:
        for user in ("ana", "ben"):
            world.add(ROOM, MESSAGE, "+", user)
        await asyncio.sleep(30)
        world.start("one", ONE)
        world.kill_at("one", command)
        await asyncio.sleep(30)
        assert world.tally.kills == 1
        world.start("one")
        await asyncio.sleep(SOON)

    assert ends(script) == []


@contextmanager
def _held_back(world: World) -> Iterator[Callable[[], None]]:
    """Hold back what is published in here, until it is released."""
    stream = world.state.stream
    held: list[tuple[str, Message]] = []

    def release() -> None:
        for channel, message in held:
            stream.deliver(channel, replace(message, position=stream.next_position()))

    with patch.object(stream, "publish", lambda channel, message: held.append((channel, message))):
        yield release


@contextmanager
def _listing(world: World, then: Callable[[], None]) -> Iterator[None]:
    """Do something as soon as a page was made, before it is on its way back."""
    real = world.state.page

    def page(channel: str, window: Window) -> Page:
        made = real(channel, window)
        if made.actions:
            then()
        return made

    with patch.object(world.state, "page", page):
        yield


# --------------------------------------------------------------------------------------------------- what it tells


@pytest.mark.parametrize("trouble", ["redis", "forbidden", "none", *OUTAGE_KINDS])
def test_a_worker_is_alive_through_all_of_it(trouble: str) -> None:
    """For an hour, and just after: no restart would mend it, and its loops turn."""
    told: list[tuple[float, bytes]] = []

    async def script(world: World) -> None:
        world.channels = (ROOM, HALL)
        process = world.start("one", Subscriptions((ROOM, HALL), per_subscription=1))
        await asyncio.sleep(SOON)
        world.add(ROOM, MESSAGE, "+", "ana")
        match trouble:
            case "redis":
                world.cut_redis(HOUR)
            case "forbidden":
                world.forbid(ROOM, HOUR)
            case "none":
                pass
            case kind:
                world.break_pubnub(kind, HOUR)
        for minute in range(90):
            await asyncio.sleep(60)
            assert process.health
            page = await process.health.livez()
            if page.status != 200:
                told.append((minute, page.body))
        await asyncio.sleep(600 + SOON)

    assert ends(script) == []
    assert told == []
