"""No event of a forgotten user is applied, however it comes."""

import asyncio
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from reaction_tally.keys import Keys
from tests.bench.bench import SETTLE_SECONDS, Bench, Clock
from tests.histories import ANA, BEN, CHANNEL, MESSAGE, added, at, pruned, removed, restored
from worker.applying.forgotten_users import FRESH_SECONDS, FreshUsers
from worker.applying.user_forgetting import MARGIN_SECONDS, ErasureReport, forget_users
from worker.domain.action import Origin
from worker.domain.entry import Outcome
from worker.domain.forgotten_users import NOBODY
from worker.errors import RedisUnavailableError, StaleError
from worker.source.wire import CountedTypes, decode_action, decode_message
from worker.store.refused_users import RefusedUsers
from worker.store.tables import Tables
from worker.store.user_data import UserData
from worker.store.user_erasure import UserErasure

KEYS = Keys()


async def forget(bench: Bench, *uuids: str) -> None:
    """Refuse users; let every process know it."""
    await bench.tables.refused_users.add(uuids)
    bench.clock.now += FRESH_SECONDS + 1


@pytest.mark.parametrize("origin", Origin)
async def test_their_events_are_left_out(bench: Bench, origin: Origin) -> None:
    """Live, of history and of a comparison. Others are applied."""
    await forget(bench, "ana")
    events = [added(1), added(1, BEN), removed(2), restored(1, 2), None]

    outcomes = await bench.applier.apply(events, origin, bench.clock())

    assert outcomes == {Outcome.APPLIED: 1}
    assert await bench.reader.get(CHANNEL, MESSAGE) == {"reaction": {"👍": 1}}
    assert not await bench.redis.exists(KEYS.removed(CHANNEL, MESSAGE))


async def test_a_prune_is_never_refused(bench: Bench) -> None:
    """It only takes away."""
    await bench.applier.apply([added(1), added(1, BEN)], Origin.LIVE, bench.clock())
    await forget(bench, "ana")

    await bench.applier.apply([pruned(1)], Origin.RECONCILE, bench.clock())

    assert await bench.reader.get(CHANNEL, MESSAGE) == {"reaction": {"👍": 1}}


async def test_malformed_events_of_theirs_are_not_kept(bench: Bench) -> None:
    """The quarantine would have the name again."""
    await forget(bench, "ana")
    types = CountedTypes()
    data = {"type": "reaction", "messageTimetoken": MESSAGE, "actionTimetoken": at(1)}
    malformed = [
        decode_message(
            {"e": 3, "c": "room", "i": user, "d": {"event": "added", "data": data}}, types
        )
        for user in ("ana", "ben")
    ]
    malformed += [
        decode_message({"e": 3, "c": "room", "d": {"data": {"uuid": user}}}, types)
        for user in ("ana", "ben", 7)
    ]
    malformed += [decode_action("room", {**data, "uuid": user}, types) for user in ("ana", "ben")]

    await bench.applier.apply(malformed, Origin.LIVE, bench.clock())

    kept = [letter["payload"] for letter in await bench.quarantined()]
    assert len(kept) == 4
    assert not any("ana" in payload for payload in kept)


async def test_a_process_knows_a_request_after_ten_seconds(bench: Bench) -> None:
    """And not later, whatever it did before."""
    await bench.applier.apply([added(1, BEN)], Origin.LIVE, bench.clock())
    await bench.tables.refused_users.add(["ana"])

    bench.clock.now += FRESH_SECONDS
    await bench.applier.apply([added(1)], Origin.LIVE, bench.clock())
    assert await bench.reader.get(CHANNEL, MESSAGE) == {"reaction": {"👍": 2}}

    bench.clock.now += 0.1
    await bench.applier.apply([added(2)], Origin.LIVE, bench.clock())
    assert await bench.redis.hgetall(KEYS.actions(CHANNEL, MESSAGE)) == {
        "reaction:👍:ana": at(1),
        "reaction:👍:ben": at(1),
    }


async def test_an_event_that_waits_for_redis_is_read_again(bench: Bench) -> None:
    """Nobody asks again who is forgotten, but it is not applied after a settle time."""
    received_at = bench.clock()
    await bench.applier.apply([added(1, BEN)], Origin.LIVE, received_at)
    bench.clock.now += FRESH_SECONDS

    bench.clock.now = received_at + SETTLE_SECONDS + 0.1
    with pytest.raises(StaleError):
        await bench.applier.apply([added(1)], Origin.LIVE, received_at)


class SlowTable(RefusedUsers):
    """A Redis that takes its time."""

    def __init__(self, redis: Redis, clock: Clock, seconds: float) -> None:
        super().__init__(redis, KEYS)
        self.calls = 0
        self._clock = clock
        self._left = seconds

    async def read(self) -> Any:
        """Read, after a while."""
        self.calls += 1
        held = await super().read()
        await asyncio.sleep(0)
        self._clock.now += self._left
        self._left = 0.0
        return held


async def test_what_came_late_is_read_again(bench: Bench) -> None:
    """An answer may be as old as its question."""
    table = SlowTable(bench.redis, bench.clock, FRESH_SECONDS + 1)

    assert await FreshUsers(table, bench.clock).current() is NOBODY

    assert table.calls == 2


async def test_tasks_share_one_read(bench: Bench) -> None:
    """A worker has many subscriptions."""
    table = SlowTable(bench.redis, bench.clock, 0)
    fresh = FreshUsers(table, bench.clock)

    await asyncio.gather(*(fresh.current() for _ in range(20)))
    bench.clock.now += FRESH_SECONDS
    await fresh.current()

    assert table.calls == 1


async def test_two_processes_agree_on_the_key(bench: Bench) -> None:
    """Of two first requests at the same time."""
    tables = [Tables(bench.redis, KEYS).refused_users for _ in range(8)]

    await asyncio.gather(*(table.add([f"user-{n}"]) for n, table in enumerate(tables)))

    users = await tables[0].read()
    assert all(f"user-{n}" in users for n in range(8))
    assert set(await tables[0].since(["user-0", "ana"])) == {"user-0"}
    assert await tables[0].remove(["user-0", "ana"]) == 1
    assert "user-0" not in await tables[0].read()


async def test_no_name_is_stored(bench: Bench) -> None:
    """Redis has a hash of 256 bits, and the time."""
    await bench.tables.refused_users.add(["ana"])

    held = await cast("Any", bench.redis).hgetall(KEYS.forgotten)

    assert len(held.pop("key")) == 64
    ((field, time),) = held.items()
    assert len(field) == 64
    assert int(time) > 1_600_000_000_000


async def test_what_was_applied_meanwhile_is_gone(bench: Bench) -> None:
    """Another process held an event that it had read before the request.

    It applies it at the last moment: after the first pass.
    """
    await bench.applier.apply([added(1), added(1, BEN)], Origin.LIVE, bench.clock())
    other = Bench(bench.redis, bench.emulator, bench.client, Clock())
    received_at = other.clock()
    waited: list[float] = []

    async def pause(seconds: float) -> None:
        """Let the other process wait as long as it may."""
        waited.append(seconds)
        assert not await bench.redis.exists(KEYS.actions("hall", MESSAGE))
        assert await bench.reader.get(CHANNEL, MESSAGE) == {"reaction": {"👍": 1}}
        await other.applier.apply([added(2)], Origin.LIVE, received_at)
        assert await bench.reader.get(CHANNEL, MESSAGE) == {"reaction": {"👍": 2}}
        other.clock.now += seconds

    await other.applier.apply([added(3, BEN)], Origin.LIVE, received_at)

    report = await forget_users(
        ["ana"],
        bench.tables.refused_users,
        UserData(bench.redis, KEYS, ["ana"]),
        UserErasure(bench.redis, KEYS, 86_400),
        SETTLE_SECONDS,
        pause,
    )

    assert waited == [FRESH_SECONDS + SETTLE_SECONDS + MARGIN_SECONDS]
    assert report == ErasureReport(actions=2, entries=2)
    assert await bench.reader.get(CHANNEL, MESSAGE) == {"reaction": {"👍": 1}}
    await other.applier.apply([added(4)], Origin.LIVE, other.clock())
    assert await bench.reader.get(CHANNEL, MESSAGE) == {"reaction": {"👍": 1}}


async def test_a_request_that_redis_lost_is_told(bench: Bench) -> None:
    """A crash loses the last second. Nobody hears that a user is forgotten who is not."""

    async def pause(_: float) -> None:
        """Let Redis go back to a state before the request of one of them."""
        await bench.tables.refused_users.remove(["ben"])

    with pytest.raises(RedisUnavailableError, match="type the same command again"):
        await forget_users(
            ["ana", "ben"],
            bench.tables.refused_users,
            UserData(bench.redis, KEYS, ["ana", "ben"]),
            UserErasure(bench.redis, KEYS, 86_400),
            SETTLE_SECONDS,
            pause,
        )


async def test_an_identity_of_another_user_stays(bench: Bench) -> None:
    """Whose name is a part of the forgotten one."""
    await forget(bench, "ana:x")

    await bench.applier.apply([added(1, ANA)], Origin.LIVE, bench.clock())

    assert await bench.reader.get(CHANNEL, MESSAGE) == {"reaction": {"👍": 1}}
