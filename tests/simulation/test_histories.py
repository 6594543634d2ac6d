"""Histories that end exact, and would not without the protection that each of them proves."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

import pytest

from tests.simulation.history import Outcome, played
from tests.simulation.oracle import BrokenError
from tests.simulation.pubnub_twin import IDLE_SECONDS
from tests.simulation.world import DAY_TICKS, HOUR, KEYS, SETTLE_SECONDS, WorkerConfig, World
from worker.applying.apply import Applier
from worker.applying.losses import LossFinder
from worker.applying.sending import ReadTime
from worker.domain.position import Cursor, Range
from worker.domain.reconciliation import Limit
from worker.emulator import OUTAGE_KINDS, Page, Window
from worker.live import full_answers
from worker.live.gaps import Gaps
from worker.live.subscription import Subscription
from worker.live.subscription_cursor import SubscriptionCursor
from worker.reconciliation import corrections, rounds, second_pass
from worker.reconciliation.consistency import Consistency
from worker.reconciliation.origin_check import OriginCheck
from worker.reconciliation.repair_queue import RepairQueue
from worker.reconciliation.schedule import Schedule
from worker.service.parts import build_backfiller, build_reconciler
from worker.store.acknowledged import Acknowledged
from worker.store.cursors import Cursors
from worker.store.pending_repairs import GapCause
from worker.store.rollback_detector import RollbackDetector
from worker.store.script_call import CursorSave
from worker.store.store import Store

if TYPE_CHECKING:
    from worker.emulator.cache import Message

MESSAGE: Final = "17500000000000000"
OTHER: Final = "17500000000000001"
ROOM, HALL = "r.a", "r.b"
WITNESS: Final = "r.w"
"""A channel that PubNub always lists, so that another one may be emptied."""
ONE: Final = WorkerConfig((ROOM, WITNESS))
SOON: Final = 3 * SETTLE_SECONDS + 20
"""Seconds that a repair takes without trouble; no round begins before."""

Script = Callable[[World], Coroutine[Any, Any, None]]
Without = Callable[[], AbstractContextManager[Any]]


def ends(script: Script) -> list[str]:
    """Play the script, an hour before the next round; return what differs, or broke."""
    outcome = Outcome(0)
    found: list[str] = []

    async def play(world: World) -> None:
        world.add(WITNESS, MESSAGE, "+", "wim")
        await script(world)
        found.extend(world.differences())

    world = played(script.__name__, play, {}, outcome, after_the_hour=10, tells=True)
    story = "\n".join(world.story[-60:])
    return [f"{line}\n{story}" for line in [*found, *filter(None, [outcome.broken])]]


def expect(script: Script, without: Without) -> None:
    """Expect the script to end exact, and not to without its protection."""
    assert ends(script) == []
    with without():
        missed = ends(script)
    assert missed, "it is as right without what it is to prove"
    assert not [line for line in missed if _is_a_slip(line)], "it ended before it could be wrong"


def _is_a_slip(line: str) -> bool:
    """Tell whether a history fails by an error of its own.

    It should fail by a wrong count, or a broken invariant.
    """
    first = line.partition("\n")[0]
    return "Error: " in first and (
        not first.startswith(BrokenError.__name__) or "a worker failed" in first
    )


@contextmanager
def without_marks(only: GapCause | None = None) -> Iterator[None]:
    """Forget gaps: all, or those of one cause."""
    real = Gaps.owe

    async def owe(
        self: Gaps, channels: Any, gap: GapCause, cursor: Any, *, is_new: bool = True
    ) -> None:
        if only and gap is not only:
            await real(self, channels, gap, cursor, is_new=is_new)

    with patch.object(Gaps, "owe", owe):
        yield


@contextmanager
def without_rollback_detection() -> Iterator[None]:
    """Let no worker notice that Redis went back."""

    async def greet(self: RollbackDetector, connection: object) -> None:
        pass

    with (
        patch.object(RollbackDetector, "check_server", greet),
        patch.object(RollbackDetector, "suspect", lambda *_: None),
        patch.object(RollbackDetector, "observe", lambda *_: True),
        patch.object(SubscriptionCursor, "next_save", _save_anyhow),
    ):
        yield


def _save_anyhow(self: SubscriptionCursor, cursor: Cursor, _covered_until: float) -> CursorSave:
    return CursorSave(self.subscription, cursor)


def without_proofs() -> AbstractContextManager[Any]:
    """Take every restart of Redis for a loss of everything."""

    async def find(self: LossFinder) -> tuple[str, Any]:
        return "another server answers", await self.known_channels()

    return patch.object(LossFinder, "find", find)


def without_compared_cursors() -> AbstractContextManager[Any]:
    """Look for lost cursors only when the next one is saved."""

    async def none_lost(*_: Any) -> set[str]:
        return set()

    return patch.object(Cursors, "lost", none_lost)


def with_ended_cursors() -> AbstractContextManager[Any]:
    """Expect the cursors of ended subscriptions for ever."""
    return patch.object(SubscriptionCursor, "end", lambda _: None)


def without_marks_known() -> AbstractContextManager[Any]:
    """Let processes forget at once what they marked."""
    return patch.object(Acknowledged, "note_marks", lambda *_: None)


def without_memory_of_channels() -> AbstractContextManager[Any]:
    """Let processes remember only the channels that they wrote to."""
    return patch.object(Acknowledged, "note_channels", lambda *_: None)


def without_repair_queue() -> AbstractContextManager[Any]:
    """Let only the rounds repair."""

    async def run(self: RepairQueue) -> None:
        await asyncio.Event().wait()

    return patch.object(RepairQueue, "run", run)


def without_rounds() -> AbstractContextManager[Any]:
    """Make no rounds."""

    async def run(self: rounds.Rounds) -> None:
        await asyncio.Event().wait()

    return patch.object(rounds.Rounds, "run", run)


# --- kills and cursors ---------------------------------------------------------------------------


def test_a_kill_during_the_first_backfill() -> None:
    """The backfill was requested before the cursor was saved, so the next process does it."""

    async def script(world: World) -> None:
        for user in ("ana", "ben", "cy"):
            world.add(ROOM, MESSAGE, "+", user)
        await asyncio.sleep(30)
        world.start("one", ONE)
        world.kill_at("one", "save_cursor")
        await asyncio.sleep(5)
        assert world.statistics.kills == 1
        world.start("one")
        await asyncio.sleep(SOON)

    expect(script, without_marks)


def test_a_kill_after_a_full_answer() -> None:
    """The overflow was marked before its events and its cursor were written, by one call."""

    async def script(world: World) -> None:
        world.start("one", ONE)
        await asyncio.sleep(SOON)
        world.kill("one")
        world.add(ROOM, MESSAGE, "+", "ana")
        world.burst(ROOM, 120)
        await asyncio.sleep(10)
        world.start("one")
        world.kill_at("one", "apply")
        await asyncio.sleep(10)
        assert world.statistics.kills == 2
        world.start("one")
        await asyncio.sleep(SOON)

    expect(script, lambda: patch.object(full_answers, "FULL_ANSWER", 10**9))


@pytest.mark.parametrize("is_running", [True, False])
def test_a_channel_that_joins_a_subscription(is_running: bool) -> None:
    """Its cursor never covered the channel, so the past is owed, at a restart or a reload."""

    async def script(world: World) -> None:
        world.channels = (ROOM, HALL)
        ana, both = world.add(HALL, MESSAGE, "+", "ana"), WorkerConfig((ROOM, HALL, WITNESS))
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

    expect(script, without_marks)


@pytest.mark.parametrize("is_running", [True, False])
def test_a_channel_that_changes_its_subscription(is_running: bool) -> None:
    """It resumes where it was, so nothing is owed or missed."""

    async def script(world: World) -> None:
        world.channels = (ROOM, HALL)
        world.start("one", WorkerConfig((ROOM, HALL, WITNESS)))
        await asyncio.sleep(SOON)
        world.add(HALL, MESSAGE, "+", "ana")
        if is_running:
            world.reload("one", WorkerConfig((HALL, WITNESS)))
            world.add(HALL, MESSAGE, "-", "ana")
        else:
            world.kill("one")
            world.add(HALL, MESSAGE, "-", "ana")
            world.start("one", WorkerConfig((HALL, WITNESS)))
        await asyncio.sleep(5)
        owed = world.owed()
        if owed:
            raise BrokenError(f"owes {owed}")

    def without_resume_points() -> AbstractContextManager[Any]:
        """Let every successor begin anew."""
        return patch.object(Subscription, "resume_point", None)

    def without_followed() -> AbstractContextManager[Any]:
        async def followed(self: Cursors) -> list[Any]:
            return []

        return patch.object(Cursors, "followed", followed)

    expect(script, without_resume_points if is_running else without_followed)


@pytest.mark.parametrize("command", ["hset", "expire", "hgetall", "time", "save_cursor"])
def test_a_change_of_the_list_during_an_outage(command: str) -> None:
    """An adopted cursor keeps its age, so its gap is owed. Each step is tried."""

    async def script(world: World) -> None:
        world.channels = (ROOM, HALL)
        ana = world.add(HALL, MESSAGE, "+", "ana")
        world.start("one", WorkerConfig((ROOM, HALL, WITNESS)))
        await asyncio.sleep(SOON)
        world.reload("one", WorkerConfig((HALL, WITNESS)))
        world.cut_at("one", command, HOUR / 2)
        await asyncio.sleep(10)
        assert world.server.is_down
        assert ana
        world.remove(HALL, ana)
        await asyncio.sleep(HOUR / 2 + 300 + SOON)

    expect(script, lambda: without_marks(GapCause.STALE_CURSOR))


def test_a_cursor_older_than_the_cache() -> None:
    """A removal of an hour ago is neither in the cache nor in the list."""

    async def script(world: World) -> None:
        ana = world.add(ROOM, MESSAGE, "+", "ana")
        world.start("one", ONE)
        await asyncio.sleep(SOON)
        world.kill("one")
        assert ana
        world.remove(ROOM, ana)
        await asyncio.sleep(HOUR / 2)
        world.start("one")
        await asyncio.sleep(300 + SOON)  # the first answer is that of an idle poll

    expect(script, lambda: without_marks(GapCause.STALE_CURSOR))


def test_a_channel_back_from_403() -> None:
    """It is owed when it comes back."""

    async def script(world: World) -> None:
        world.channels = (ROOM, HALL)
        ana = world.add(ROOM, MESSAGE, "+", "ana")
        world.start("one", WorkerConfig((ROOM, HALL, WITNESS)))
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

    expect(script, lambda: without_marks(GapCause.FORBIDDEN))


def test_a_gap_while_a_backfill_ends() -> None:
    """Its stretch is replayed, too, and its mark is newer than the first look."""

    async def script(world: World) -> None:
        world.add(ROOM, MESSAGE, "+", "ana")
        world.start("one", ONE)
        overflows = iter((1,))

        def overflow(done: str) -> None:
            if done == "hdel" and next(overflows, None):
                world.add(ROOM, MESSAGE, "+", "ben")
                world.burst(ROOM, 110)

        await asyncio.sleep(0.01)
        world.processes["one"].machine.on_effect = overflow
        await asyncio.sleep(2 * SOON)
        assert not next(overflows, None)
        owed = world.owed()
        if owed:
            raise BrokenError(f"still owes {owed}")

    assert ends(script) == []


# --- lost, late, twice ---------------------------------------------------------------------------


def test_a_removal_lost_a_second_after_its_addition() -> None:
    """Only the list shows it, and only the next round reads the list."""

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


def test_an_addition_after_its_removal() -> None:
    """The removal was before the handshake, so no tombstone bars the addition.

    The first start is owed, and the repair removes it.
    """

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

    expect(script, without_repair_queue)


def test_a_lost_removal_of_a_month_old_action() -> None:
    """Everything is looked at in the time that is set, counted from the loss."""
    config = replace(ONE, full_seconds=2 * HOUR)

    async def script(world: World) -> None:
        month = world.state.time.now() - 30 * DAY_TICKS
        ana = world.add(ROOM, MESSAGE, "+", "ana", at=month, published=False)
        world.add(ROOM, MESSAGE, "+", "ben", at=month + 2 * DAY_TICKS, published=False)
        world.start("one", config)
        await asyncio.sleep(SOON)
        assert ana
        world.remove(ROOM, ana, published=False)
        await asyncio.sleep(2 * HOUR)

    expect(script, lambda: patch.object(Schedule, "full_interval", lambda *_: 1e9))


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


def test_a_channel_that_lists_nothing_for_hours() -> None:
    """Rounds do not take away by slices what one look may not take at once."""

    async def script(world: World) -> None:
        world.oracle.expects = frozenset({"unlisted"})
        for number in range(30):
            world.add(ROOM, MESSAGE, "+", f"user{number}")
        world.start("one", ONE)
        await asyncio.sleep(SOON)
        world.unlist(ROOM, 5 * HOUR)
        await asyncio.sleep(5 * HOUR)

    expect(script, lambda: patch.object(Limit, "forbids", lambda *_: False))


def test_a_wrong_origin_for_hours() -> None:
    """It lists nothing of any channel, and that proves nothing of one with few reactions."""

    async def script(world: World) -> None:
        world.oracle.expects = frozenset({"origin"})
        world.add(ROOM, MESSAGE, "+", "ana")
        world.start("one", ONE)
        await asyncio.sleep(SOON)
        world.mistake_origin(5 * HOUR)
        await asyncio.sleep(5 * HOUR)

    expect(script, lambda: patch.object(OriginCheck, "is_known", _yes))


async def _yes(*_: object) -> bool:
    return True


@pytest.mark.parametrize("kinds", [("counts",), ("actions",)])
def test_deleted_counts_or_actions_of_a_message(kinds: tuple[str, ...]) -> None:
    """Nothing but a comparison of both shows it. Events arrive before the repair."""

    async def script(world: World) -> None:
        world.start("one", ONE)
        await asyncio.sleep(SOON)
        ana, *_ = (world.add(ROOM, MESSAGE, "+", user) for user in ("ana", "ben", "cy"))
        world.add(ROOM, MESSAGE, "-", "ana")
        await asyncio.sleep(SETTLE_SECONDS)
        world.lose(ROOM, MESSAGE, *kinds)
        assert ana
        world.remove(ROOM, ana)
        world.add(ROOM, MESSAGE, "-", "dan")
        world.burst(ROOM, 120)
        await asyncio.sleep(SOON)

    expect(script, lambda: patch.object(Store, "rebuild", _nothing))


def test_a_deleted_index_of_messages() -> None:
    """Entries that are not in the index are not compared, so a lost removal would stay."""

    async def script(world: World) -> None:
        world.start("one", ONE)
        await asyncio.sleep(SOON)
        ana, _ = (world.add(ROOM, MESSAGE, "+", user) for user in ("ana", "ben"))
        other = world.add(ROOM, OTHER, "+", "ana")
        await asyncio.sleep(SETTLE_SECONDS)
        world.evict(KEYS.messages(ROOM))
        assert ana
        assert other
        world.remove(ROOM, ana, published=False)
        world.remove(ROOM, other, published=False)
        world.burst(ROOM, 120)
        await asyncio.sleep(SOON)

    expect(script, lambda: patch.object(Consistency, "restore_messages", _nothing))


async def _nothing(*_: object) -> int:
    return 0


def test_a_removed_newer_action_of_two() -> None:
    """The older one counts. A tombstone bars it until it has been listed twice."""

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

    expect(script, lambda: patch.object(corrections, "_revival", lambda *_: None))


def test_the_second_pass_loses_its_witnesses() -> None:
    """They are removed between the passes. Nothing is proven, so another reconcile follows."""

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


def test_a_lost_removal_beside_the_oldest_action() -> None:
    """They share a timetoken, so nothing is strictly below. The end of the list is enough."""

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


# --- machines and Redis --------------------------------------------------------------------------


def test_a_page_held_by_a_suspended_machine() -> None:
    """Its action was removed meanwhile, and the tombstone has ended. The page is read again."""

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


def test_answers_that_take_longer_than_the_settle_time() -> None:
    """A page may wait for a settle time after it came, however long it was under way."""

    async def script(world: World) -> None:
        slowly = world.random.uniform
        with patch.object(world.pubnub, "delay", lambda: slowly(0.25, 2.5)):
            actions = [world.add(ROOM, MESSAGE, "+", f"user{number}") for number in range(250)]
            world.start("one", replace(ONE, settle_seconds=1))
            await asyncio.sleep(180)
            for action in filter(None, actions[:20]):
                world.remove(ROOM, action, published=False)
            world.burst(ROOM, 101)
            await asyncio.sleep(180)
            if any("page_dropped" in line for line in world.story):
                raise BrokenError("pages are read again and again")

    expect(script, _with_age_from_the_request)


def _with_age_from_the_request() -> AbstractContextManager[Any]:
    def is_stale(self: ReadTime, now: float, settle_seconds: float) -> bool:
        return now - self.asked_at > settle_seconds

    return patch.object(ReadTime, "is_stale", is_stale)


def test_a_late_page_of_one_process_after_a_look_of_another() -> None:
    """The page lists an action that was removed in a gap. The look has taken the mark away."""

    async def script(world: World) -> None:
        config = replace(ONE, settle_seconds=1)
        world.start("one", config)
        await asyncio.sleep(SOON)
        ana = world.add(ROOM, MESSAGE, "+", "ana", published=False)
        assert ana
        way, once = world.pubnub.delay, iter([15.0])

        def meanwhile() -> None:
            world.remove(ROOM, ana, published=False)
            world.burst(ROOM, 101)
            world.pubnub.delay = lambda: next(once, 0.0) or way()  # type: ignore[method-assign]

        with _listing(world, meanwhile):
            await world.command(
                lambda parts: build_backfiller(parts, 1).run([ROOM], Range()), config
            )
        assert world.differences()
        if set(world.keyspace.hgetall(KEYS.owed(ROOM))) != {GapCause.UNPROVEN}:
            raise BrokenError("counted for ever")
        await world.command(lambda parts: build_reconciler(parts, 1).run([ROOM], Range()), config)

    expect(script, _without_marks_of_late_pages)


def _without_marks_of_late_pages() -> AbstractContextManager[Any]:
    return patch.object(ReadTime, "is_late", lambda *_: False)


def test_a_failover_under_a_running_worker() -> None:
    """The replica lacks some seconds, so everything is owed."""

    async def script(world: World) -> None:
        ana = world.add(ROOM, MESSAGE, "+", "ana")
        world.start("one", ONE)
        await asyncio.sleep(SOON)
        world.fail_over(10)
        assert ana
        world.remove(ROOM, ana)
        world.add(ROOM, MESSAGE, "+", "ben")
        await asyncio.sleep(10 + SOON)

    expect(script, without_rollback_detection)


def test_a_restart_without_loss_costs_nothing() -> None:
    """Redis has all it had: nothing is owed, nothing is read again."""
    quiet = WorkerConfig((ROOM, WITNESS))

    async def script(world: World) -> None:
        world.start("one", quiet)
        await asyncio.sleep(SOON)
        world.add(ROOM, MESSAGE, "+", "ana")
        await asyncio.sleep(5)
        before = world.pubnub.lists
        for seconds in (0.0, 2.0, 20.0):
            world.restart_redis(seconds)
            world.add(ROOM, MESSAGE, "+", f"ben-{seconds}")
            await asyncio.sleep(SOON)
        if owed := world.owed():
            raise BrokenError(f"owes {owed}")
        if world.pubnub.lists > before:
            raise BrokenError(f"{world.pubnub.lists - before} lists were read")

    expect(script, without_proofs)


def test_a_failover_costs_what_it_lost() -> None:
    """One room of two has lost its newest entry. The other one is not read again."""

    async def script(world: World) -> None:
        world.start("one", WorkerConfig((ROOM, HALL, WITNESS)))
        for room in (ROOM, HALL):
            world.add(room, MESSAGE, "+", "ana")
        await asyncio.sleep(SOON)
        world.fail_over(1)
        world.add(ROOM, MESSAGE, "+", "ben")
        await asyncio.sleep(20)
        owed = set(world.owed())
        if owed != {ROOM}:
            raise BrokenError(f"owed are {owed}")
        await asyncio.sleep(SOON)

    expect(script, without_proofs)


def test_a_failover_that_lost_a_cursor_alone_costs_nothing() -> None:
    """The worker polls again from the one before. Nothing is owed, nothing is read again."""

    async def script(world: World) -> None:
        world.start("one", ONE)
        await asyncio.sleep(IDLE_SECONDS - 5)
        before = world.pubnub.lists
        world.fail_over(20)
        await asyncio.sleep(IDLE_SECONDS + SOON)
        if world.pubnub.lists > before:
            raise BrokenError(f"{world.pubnub.lists - before} lists were read")

    expect(script, without_compared_cursors)


def test_the_cursor_of_an_ended_subscription_is_no_sign() -> None:
    """It is deleted after a week. A restart of Redis after that has lost nothing."""

    async def script(world: World) -> None:
        world.start("one", ONE)
        await asyncio.sleep(SOON)
        cursors = [key for key in world.keyspace.values if ":cursor:" in key]
        world.reload("one", WorkerConfig((ROOM, HALL, WITNESS), per_subscription=1))
        await asyncio.sleep(SOON)
        for key in cursors:
            world.keyspace.delete(key)
        world.restart_redis(0)
        await asyncio.sleep(SOON)
        if alarms := [line for line in world.story if "redis_went_back" in line]:
            raise BrokenError(alarms[0])

    expect(script, with_ended_cursors)


def test_a_lost_mark_is_written_again() -> None:
    """It is the only thing that a failover lost."""

    async def script(world: World) -> None:
        world.start("one", ONE)
        await asyncio.sleep(SOON)
        world.forbid(ROOM, 300)
        await asyncio.sleep(IDLE_SECONDS)
        world.keyspace.delete(KEYS.owed(ROOM))
        world.server.replace()
        await asyncio.sleep(20)
        if "forbidden" not in world.keyspace.hgetall(KEYS.owed(ROOM)):
            raise BrokenError("the mark is gone")
        await asyncio.sleep(300 + SOON)

    expect(script, without_marks_known)


@pytest.mark.parametrize("is_busy", [False, True])
def test_a_quiet_room_met_before_the_last_start(*, is_busy: bool) -> None:
    """A wildcard does not list it, and the copy does not know it: the process has read of it.

    A busy worker has also lost what it wrote itself.
    """

    async def script(world: World) -> None:
        world.channels = (ROOM, HALL)
        world.start("one", WorkerConfig(("r.*", WITNESS)))
        await asyncio.sleep(SOON)
        world.add(ROOM, MESSAGE, "+", "ana")
        await asyncio.sleep(SOON)
        copied = world.copy()
        world.add(HALL, MESSAGE, "+", "ana")
        await asyncio.sleep(HOUR / 2)  # more than PubNub's cache holds
        world.stop("one")
        await asyncio.sleep(60)
        world.start("one")
        await asyncio.sleep(30)
        if is_busy:
            world.add(ROOM, MESSAGE, "+", "ben")
            await asyncio.sleep(5)
        world.put_back(copied, "is an older copy")
        await asyncio.sleep(2 * SOON)
        if HALL not in world.keyspace.smembers(KEYS.channels):
            raise BrokenError("the hall is forgotten")

    expect(script, without_memory_of_channels)


def test_a_failover_brings_back_an_ended_backfill() -> None:
    """Its progress is there again, and it is finished again."""

    async def script(world: World) -> None:
        world.add(ROOM, MESSAGE, "+", "ana")
        world.start("one", ONE)
        await asyncio.sleep(0.2)
        world.fail_over(3)
        assert world.owed()
        await asyncio.sleep(3 + SOON)
        owed = world.owed()
        if owed:
            raise BrokenError(f"still owes {owed}")

    assert ends(script) == []


def test_an_hour_old_copy_of_redis() -> None:
    """It is restored under a running worker. Every channel is owed before any write."""

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

    expect(script, without_rollback_detection)


def test_a_429_of_the_clock_is_respected() -> None:
    """Requests for PubNub's clock are outside the budget, but wait as PubNub demands."""

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


@pytest.mark.parametrize("command", ["owe", "hset", "sadd", "apply", "save_cursor", "hdel"])
def test_a_kill_after_any_command_of_the_first_start(command: str) -> None:
    """The second start completes the first one."""

    async def script(world: World) -> None:
        for user in ("ana", "ben"):
            world.add(ROOM, MESSAGE, "+", user)
        await asyncio.sleep(30)
        world.start("one", ONE)
        world.kill_at("one", command)
        await asyncio.sleep(30)
        assert world.statistics.kills == 1
        world.start("one")
        await asyncio.sleep(SOON)

    assert ends(script) == []


@contextmanager
def _held_back(world: World) -> Iterator[Callable[[], None]]:
    """Hold back what is published until it is released."""
    stream = world.state.stream
    held: list[tuple[str, Message]] = []

    def release() -> None:
        for channel, message in held:
            stream.deliver(channel, replace(message, position=stream.next_position()))

    with patch.object(stream, "publish", lambda channel, message: held.append((channel, message))):
        yield release


@contextmanager
def _listing(world: World, then: Callable[[], None]) -> Iterator[None]:
    """Act as soon as a page was made, before it is on its way back."""
    real = world.state.page

    def page(channel: str, window: Window) -> Page:
        made = real(channel, window)
        if made.actions:
            then()
        return made

    with patch.object(world.state, "page", page):
        yield


# --- what it tells -------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", ["redis", "forbidden", "none", *OUTAGE_KINDS])
def test_a_worker_is_alive_in_every_outage(trouble: str) -> None:
    """A restart would not repair an outage, so ``/livez`` must not ask for one."""
    failing: list[tuple[float, bytes]] = []

    async def script(world: World) -> None:
        world.channels = (ROOM, HALL)
        process = world.start("one", WorkerConfig((ROOM, HALL, WITNESS), per_subscription=1))
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
                failing.append((minute, page.body))
        await asyncio.sleep(600 + SOON)

    assert ends(script) == []
    assert failing == []
