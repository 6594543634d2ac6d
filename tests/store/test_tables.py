"""The small tables: channels, progress, quarantine, the server, and the budget."""

import re
from typing import Any, cast

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from reaction_tally.keys import Keys
from tests.bench.round_trips import round_trips
from worker.store.budget import BURST, Budget
from worker.store.pending_repairs import GapCause
from worker.store.progress import LookProgress, Progress
from worker.store.proofs import Proof
from worker.store.tables import Tables

KEYS = Keys()


async def test_a_channel_is_unknown_until_it_is_added(tables: Tables) -> None:
    """To ask adds nothing: the repair of a new channel is marked before it is added."""
    assert await tables.channels.unknown(["a", "b"]) == {"a", "b"}
    await tables.channels.add(["a", "b"])
    assert await tables.channels.unknown(["b", "c"]) == {"c"}
    assert await tables.channels.unknown([]) == frozenset()
    await tables.channels.add([])
    assert await tables.channels.all() == {"a", "b"}


async def test_progress_is_kept_until_the_backfill_ends(tables: Tables) -> None:
    """It is read as it was saved."""
    progress = Progress(newest="9", next="5", oldest="3", actions=300)
    await tables.progress.save(progress, "room", "hall")
    both = {"room": progress, "hall": progress}
    assert await tables.progress.read_all(["room", "hall", "yard"]) == both

    await tables.progress.end("room")
    assert await tables.progress.read("room") is None
    assert await tables.progress.read("hall") == progress


async def test_a_look_and_a_backfill_end_apart(tables: Tables) -> None:
    """A channel can have both. Neither ends the other."""
    progress = Progress(newest="9", next="5", oldest="3", actions=300)
    look = LookProgress(began=1000, next="7", is_in_doubt=True, proven_until="8")
    await tables.progress.save_look(look, "room")
    assert await tables.progress.read("room") is None

    await tables.progress.save(progress, "room")
    await tables.progress.end("room")
    assert await tables.progress.read_look("room") == look

    await tables.progress.save(progress, "room")
    await tables.progress.end_look("room")
    assert await tables.progress.read_look("room") is None
    assert await tables.progress.read("room") == progress


async def test_damaged_progress_is_deleted(tables: Tables, redis: Redis) -> None:
    """It costs time only. What other channels have is read and written."""
    progress = Progress("17", "16")
    await redis.set(KEYS.progress("room"), "not ours")

    await tables.progress.save(progress, "hall", "room")
    await tables.progress.save_look(LookProgress(1), "room")
    await tables.progress.end("room")

    assert await tables.progress.read_all(["hall", "room"]) == {"hall": progress}
    assert await tables.progress.read_look("room") is None
    assert await redis.get(KEYS.progress("room")) == "not ours"
    assert await tables.progress.read("room") is None
    assert not await redis.exists(KEYS.progress("room"))


async def test_progress_of_no_sense_counts_for_nothing(tables: Tables, redis: Redis) -> None:
    """Another program wrote the fields."""
    fields = {"newest": "17", "next": "16", "actions": "many", "look_next": "5"}
    await cast("Any", redis).hset(KEYS.progress("room"), mapping=fields)

    assert await tables.progress.read("room") is None
    assert await tables.progress.read_look("room") is None


async def test_what_was_pruned_lately_is_added_up(tables: Tables) -> None:
    """Each channel has its own sum, for a day."""
    assert await tables.pruned.read("room") == 0
    await tables.pruned.add("room", 3)
    await tables.pruned.add("room", 4)

    assert (await tables.pruned.read("room"), await tables.pruned.read("hall")) == (7, 0)


async def test_the_quarantine_keeps_any_text(tables: Tables, redis: Redis) -> None:
    """Lone surrogates become escapes. A long payload is cut."""
    await tables.dead_letters.add("room", "a reason", '"\ud83d"' + "x" * 10_000)

    [(_, entry)] = await cast("Any", redis).xrange(Keys().quarantine)
    assert (entry["channel"], entry["reason"]) == ("room", "a reason")
    assert entry["payload"].startswith('"\\ud83d"x')
    assert len(entry["payload"]) == 4096


async def test_the_time_is_redis_own(tables: Tables, redis: Redis) -> None:
    """It is in milliseconds."""
    before = await redis.time()
    now = await tables.server.now()
    after = await redis.time()

    assert before[0] * 1000 + before[1] // 1000 <= now <= after[0] * 1000 + after[1] // 1000


async def test_the_budget_spaces_requests_out(redis: Redis) -> None:
    """After a burst, all processes together send one request an interval. A hold is for all."""
    waits: list[float] = []

    async def note(seconds: float) -> None:
        waits.append(seconds)

    here, there = (Budget(redis, Keys(), rate=0.001, sleep=note) for _ in range(2))
    for _ in range(BURST):
        await here.take()
    assert waits == []

    await there.take()
    await here.take()
    assert waits == [pytest.approx(1_000, abs=400), pytest.approx(2_000, abs=400)]

    await there.hold(100_000)
    await here.take()
    assert waits[-1] == pytest.approx(100_000, abs=400)


async def test_a_request_takes_what_the_rate_of_its_process_says(redis: Redis) -> None:
    """All processes wait for it: a low rate of one slows the others down."""
    waits: list[float] = []

    async def note(seconds: float) -> None:
        waits.append(seconds)

    slow, fast = (Budget(redis, Keys(), rate, sleep=note) for rate in (0.001, 1))
    await slow.take()
    assert waits == []

    await fast.take()
    assert waits == [pytest.approx(1_000, abs=100)]


async def _step_clock(redis: Redis, seconds: int) -> None:
    """Leave the budget as a step of Redis's clock would: each time in it is off by the step."""
    key = Keys().budget

    def shifted(time: re.Match[str]) -> str:
        return str(int(time[0]) - seconds * 1_000_000)

    value = await cast("Any", redis).get(key)
    await cast("Any", redis).set(key, re.sub(r"\d{16}", shifted, value))


async def test_a_step_of_the_clock_is_not_waited_for(redis: Redis) -> None:
    """A budget that was in use, or in debt, waits as before; after a step forward, less."""
    waits: list[float] = []

    async def note(seconds: float) -> None:
        waits.append(seconds)

    budget = Budget(redis, Keys(), rate=0.1, sleep=note)
    for _ in range(BURST):
        await budget.take()
    await _step_clock(redis, -86_400)
    await budget.take()
    assert waits == [pytest.approx(10, abs=5)]

    await budget.hold(300)
    await _step_clock(redis, -86_400)
    await budget.take()
    assert waits[1:] == [pytest.approx(300, abs=5)]

    await _step_clock(redis, 86_400)
    await budget.take()
    assert waits[2:] == []


async def test_a_long_wait_for_the_budget_is_logged(redis: Redis) -> None:
    """It is logged before the wait, and its end once; a short wait is not logged."""
    seen: list[str] = []

    async def note(_: float) -> None:
        seen.extend(entry["event"] for entry in entries)

    budget = Budget(redis, Keys(), rate=1, sleep=note)
    with capture_logs() as entries:
        for _ in range(BURST + 1):
            await budget.take()
        assert entries == []

        await budget.hold(60)
        await budget.take()
        await _step_clock(redis, 86_400)
        await budget.take()

    assert seen == ["budget_waits"]
    assert [entry["event"] for entry in entries] == ["budget_waits", "budget_has_room"]
    assert entries[0]["seconds"] == pytest.approx(60, abs=5)


async def test_a_look_asks_once_for_each_thing(real_redis: Redis) -> None:
    """Whether its channel is forgotten, what is known of it, and what is proven then."""
    tables = Tables(real_redis, KEYS)
    with round_trips(real_redis) as sent:
        assert await tables.channels.is_forgotten("room")
        assert await tables.proofs.read("room") == Proof()
        await tables.proofs.note("room", 1000)
    assert len(sent) == 3

    await tables.pending.mark(["room"], GapCause.NEW_CHANNEL)
    assert not await tables.channels.is_forgotten("room")
    await tables.channels.add(["hall"])
    assert not await tables.channels.is_forgotten("hall")
