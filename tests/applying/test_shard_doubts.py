"""Whoever goes on from a cursor sees which shards may have lost something since it was saved."""

from collections.abc import Collection, Iterable
from typing import Any, Final, cast

import pytest
from redis.asyncio import Redis

from reaction_tally.keys import Keys
from tests.bench.bench import CLAIM
from worker.applying.rollback import RollbackRecovery
from worker.applying.shard_doubts import ShardDoubts
from worker.applying.shard_watch import note_repaired
from worker.domain.position import Cursor
from worker.errors import RedisReplacedError, RolledBackError
from worker.source.backoff import elapsed_clock
from worker.store.key_scan import ChannelScan
from worker.store.ownership import Ownership
from worker.store.pending_repairs import GapCause
from worker.store.redis_retry import RedisRetry
from worker.store.rollback_detector import RollbackDetector
from worker.store.script_call import CursorSave
from worker.store.shard_signs import Signs, text_of
from worker.store.tables import Tables

KEYS: Final = Keys()
OLD, NEW = Cursor("17600000000000000", 1), Cursor("17600000000000009", 1)
HEAD: Final = "1760000000000-0"


class TwoShards:
    """Signs that a test sets. Names with an ``a`` lie on shard A, and all others on B."""

    def __init__(self) -> None:
        self.signs = {"A": "a1", "B": "b1"}
        self.slots = "layout:1"

    async def read(self) -> Signs:
        """Return the signs as they are now."""
        return dict(self.signs)

    async def refresh_slot_map(self) -> None:
        """Ask nobody."""

    async def layout(self) -> str:
        """Return how slots are shared out."""
        return self.slots

    def on_other_shards(
        self, channels: Iterable[str], signs: Signs, known: Collection[str]
    ) -> set[str]:
        """Return the channels on shards whose sign is not a ``known`` one."""
        return {name for name in channels if self.is_on_other_shard(name, signs, known)}

    def is_on_other_shard(self, key: str, signs: Signs, known: Collection[str]) -> bool:
        """Tell whether the sign of a key's shard is not a ``known`` one."""
        shard = "A" if key.startswith("a") else "B"
        return signs[shard] not in known


class Process:
    """A worker's parts, as far as doubts need them."""

    def __init__(self, redis: Redis, shards: TwoShards) -> None:
        self.detector = RollbackDetector()
        self.detector.expect_shards()
        self.detector.meet(text_of(shards.signs))
        self.retry = RedisRetry(elapsed_clock, self.detector, self.recover)
        self.tables = Tables(redis, KEYS, self.retry)
        self.doubts = ShardDoubts(
            self.tables,
            Tables(redis, KEYS),
            cast("Any", shards),
            ChannelScan(redis, KEYS),
            KEYS,
            self.retry,
        )
        self.shards = shards
        self.recoveries = 0

    async def recover(self) -> None:
        """Trust the shards as they are."""
        self.recoveries += 1
        self.detector.trust(text_of(self.shards.signs))

    async def load(self, *channels: str, own: Cursor | None = None) -> Cursor | None:
        """Read the cursor of a subscription to these channels."""

        async def covered() -> tuple[str, ...]:
            return channels

        saved = await self.doubts.read_cursor("subscription", own, covered)
        return saved.cursor if saved else None

    async def save(self, cursor: Cursor, signs: str) -> None:
        """Save that cursor."""
        await self.tables.cursors.save(CursorSave("subscription", cursor, signs=signs))

    async def owed(self) -> dict[str, set[str]]:
        """Return channel → causes."""
        held = await self.tables.pending.read_all(["alpha", "beta"])
        return {channel: set(marks) for channel, marks in held.items()}


@pytest.fixture
def shards() -> TwoShards:
    """Two shards."""
    return TwoShards()


@pytest.fixture
async def process(redis: Redis, shards: TwoShards) -> Process:
    """A process that knows two channels."""
    process = Process(redis, shards)
    await process.tables.channels.add(["alpha", "beta"])
    return process


async def test_no_cursor_is_in_no_doubt(process: Process) -> None:
    """Its first start is marked elsewhere."""
    assert await process.load("alpha") is None
    assert await process.owed() == {}


async def test_the_same_signs_owe_nothing(process: Process) -> None:
    """No shard has changed."""
    await process.save(OLD, "a1 b1 layout:1")
    assert await process.load("alpha", "beta") == OLD
    assert await process.owed() == {}


async def test_another_sign_owes_its_shard(process: Process) -> None:
    """Once: a second cursor of the same time finds it owed."""
    await process.save(OLD, "a0 b1 layout:1")
    assert await process.load("alpha", "beta") == OLD
    assert await process.owed() == {"alpha": {GapCause.REDIS_WENT_BACK}}

    marks = await process.tables.pending.read("alpha")
    await process.load("alpha", "beta")
    assert await process.tables.pending.read("alpha") == marks


async def test_an_older_cursor_may_doubt_another_shard(process: Process) -> None:
    """A shard that was in no doubt before."""
    await process.save(OLD, "a0 b1 layout:1")
    await process.load("alpha")
    await process.save(OLD, "a0 b0 layout:1")
    await process.load("alpha")
    assert set(await process.owed()) == {"alpha", "beta"}


async def test_no_signs_owe_everything(process: Process) -> None:
    """The cursor was saved on one server, or by an older version."""
    await process.save(OLD, "")
    await process.load("alpha")
    assert set(await process.owed()) == {"alpha", "beta"}


async def test_names_that_are_lost_are_found_by_their_keys(redis: Redis, process: Process) -> None:
    """The shard of the list of names has changed, too."""
    await redis.delete(KEYS.channels)
    for channel in ("alpha", "beta"):
        await redis.zadd(KEYS.messages(channel), {"17600000001728660": 1})
    await redis.set(KEYS.head("forgotten"), HEAD)
    await process.save(OLD, "a1 b0 layout:1")
    await process.load("alpha")
    assert await process.owed() == {"beta": {GapCause.REDIS_WENT_BACK}}
    assert await process.tables.channels.all() == {"alpha", "beta"}


async def test_a_slot_that_has_left_a_changed_shard_is_in_doubt(
    process: Process, shards: TwoShards
) -> None:
    """The channel lies on a shard that has lost nothing, but did not before."""
    await process.save(OLD, "a0 b1 layout:1")
    await process.load("alpha")
    assert set(await process.owed()) == {"alpha"}

    shards.slots = "layout:2"
    await process.load("alpha")
    assert set(await process.owed()) == {"alpha", "beta"}


async def test_slots_that_move_owe_nothing(process: Process, shards: TwoShards) -> None:
    """As long as every shard is as it was."""
    await process.save(OLD, "a1 b1 layout:1")
    shards.slots = "layout:2"
    await process.load("alpha")
    assert await process.owed() == {}


async def test_a_shard_that_has_left_owes_everything(process: Process, shards: TwoShards) -> None:
    """Its channels lie on others, where nothing tells them apart."""
    await process.save(OLD, "a1 b1 c1 layout:1")
    shards.slots = "layout:2"
    await process.load("alpha")
    assert set(await process.owed()) == {"alpha", "beta"}


async def test_an_own_cursor_is_in_no_doubt(process: Process) -> None:
    """This process has compared what it wrote before. Another one may have gone further."""
    await process.save(OLD, "a0 b0 layout:1")
    assert await process.load("alpha", own=OLD) == OLD
    assert await process.owed() == {}

    await process.save(NEW, "a0 b1 layout:1")
    assert await process.load("alpha", own=OLD) == NEW
    assert set(await process.owed()) == {"alpha"}


async def test_heads_and_marks_of_others_are_known_from_there_on(
    redis: Redis, process: Process
) -> None:
    """So what is lost of them later will show."""
    await redis.set(KEYS.head("alpha"), HEAD)
    await Tables(redis, KEYS).pending.mark(["alpha"], GapCause.OVERFLOW)
    await process.load("alpha", "beta")

    known = process.detector.acknowledged
    assert known.heads == {"alpha": HEAD}
    assert known.marks["alpha"].keys() == {GapCause.OVERFLOW}


async def test_a_shard_that_changes_is_compared_first(process: Process, shards: TwoShards) -> None:
    """The cursor is read again afterwards."""
    await process.save(OLD, "a1 b1 layout:1")
    shards.signs["A"] = "a2"
    await process.load("alpha")
    assert process.recoveries == 1
    assert set(await process.owed()) == {"alpha"}


async def test_an_answer_of_before_counts_as_none(process: Process, shards: TwoShards) -> None:
    """It came while the shards were compared, or while that was still to do."""
    answers = ["of before", "of now"]

    async def call() -> str:
        answer = answers.pop(0)
        if answers:
            shards.signs["A"] = "a2"
            process.detector.meet(text_of(shards.signs))
        return answer

    assert await process.retry.call(call) == "of now"
    assert process.recoveries == 1


async def test_an_answer_counts_as_none_if_the_signs_are_the_same_again(process: Process) -> None:
    """Something was lost without a sign. The comparison has ended before the answer came."""

    async def call() -> str:
        if process.recoveries:
            return "of now"
        process.detector.suspect("a test")
        await process.recover()
        return "of before"

    assert await process.retry.call(call) == "of now"


def test_the_answers_of_one_server_count() -> None:
    """There, a saved cursor proves what was written before it."""
    detector = RollbackDetector()
    detector.meet("first")
    before = detector.epoch
    detector.meet("second")
    detector.check_epoch(before)

    detector.expect_shards()
    with pytest.raises(RedisReplacedError):
        detector.check_epoch(before)


async def test_a_repair_relies_on_what_others_have_written(redis: Redis, process: Process) -> None:
    """It may have found nothing to correct for that reason. So a loss of that will show."""
    await process.tables.pending.mark(["alpha"], GapCause.OVERFLOW)
    await redis.set(KEYS.head("alpha"), HEAD)
    marks = await process.tables.pending.read("alpha")
    await process.tables.pending.clear("alpha", marks)
    assert process.detector.acknowledged.heads == {"alpha": HEAD}


async def test_a_lost_shard_is_no_sign_for_other_processes(
    real_redis: Redis, shards: TwoShards
) -> None:
    """Each of them watches the shards itself. It would owe the channels of all shards."""
    process = Process(real_redis, shards)
    await process.tables.channels.add(["alpha", "beta"])
    own, others = (Ownership(real_redis, KEYS, CLAIM) for _ in range(2))
    await own.claim()
    await others.claim()
    shards.signs["A"] = "a2"
    process.detector.suspect("a test")
    recovery = RollbackRecovery(
        process.detector, Tables(real_redis, KEYS), own, (), signs=cast("Any", shards)
    )
    await recovery.run()

    assert await process.owed() == {"alpha": {GapCause.REDIS_WENT_BACK}}
    assert await others.is_held()


async def test_marks_that_others_have_taken_back_are_forgotten(
    redis: Redis, process: Process
) -> None:
    """Else each change of a shard would write them again."""
    known, others = process.detector.acknowledged, Tables(redis, KEYS)
    await process.tables.pending.mark(["alpha", "beta"], GapCause.OVERFLOW)
    await redis.set(KEYS.head("alpha"), HEAD)
    await others.pending.clear("alpha", await others.pending.read("alpha"))
    await note_repaired(others, process.detector)
    assert set(known.marks) == {"alpha", "beta"}
    known.confirm(known.unconfirmed())
    assert set(known.marks) == {"beta"}
    assert known.heads == {"alpha": HEAD}


async def test_a_mark_on_its_way_is_not_forgotten(redis: Redis, process: Process) -> None:
    """It is known before Redis has it."""
    known = process.detector.acknowledged
    known.note_marks(GapCause.OVERFLOW, ["alpha"])
    await note_repaired(Tables(redis, KEYS), process.detector)
    known.note_marks(GapCause.OVERFLOW, ["alpha"])
    known.confirm(known.unconfirmed())
    assert set(known.marks) == {"alpha"}


async def test_a_mark_that_was_written_again_meanwhile_is_not_forgotten(
    process: Process, shards: TwoShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard was compared between the end of a repair and the answer."""
    pending, known = process.tables.pending, process.detector.acknowledged
    await pending.mark(["alpha"], GapCause.OVERFLOW)
    marks = await pending.read("alpha")
    call = pending._call

    async def slow_call(*args: Any) -> Any:
        answer = await call(*args)
        if process.recoveries == 0:
            shards.signs["A"] = "a2"
            process.detector.meet(text_of(shards.signs))
            process.detector.begin_comparison()
            await process.recover()
        return answer

    def check() -> None:
        if process.recoveries:
            raise RolledBackError("compared meanwhile")

    monkeypatch.setattr(pending, "_call", slow_call)
    with pytest.raises(RolledBackError):
        await pending.clear("alpha", marks, check)
    known.confirm(known.unconfirmed())
    assert known.marks["alpha"].keys() == {GapCause.OVERFLOW}
