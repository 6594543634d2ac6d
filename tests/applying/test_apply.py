"""Whatever was decoded becomes applied, or quarantined with its reason; nothing is dropped."""

import asyncio
from dataclasses import replace
from typing import Any, cast

import pytest

from tests.bench.bench import KEYS, SETTLE_SECONDS, Bench
from tests.bench.waiting import wait_until_redis_fails
from tests.histories import ANA, BEN, CHANNEL, MESSAGE, added, removed
from worker.applying.apply import StaleError
from worker.domain.action import Identity, Origin
from worker.domain.entry import Outcome
from worker.source.wire import Decoded, Malformed


async def test_events_of_many_channels_are_applied(bench: Bench) -> None:
    """Each channel in order; more than a script call may carry, in several."""
    many = [
        added(1, Identity("hall", MESSAGE, "reaction", "👍", f"user{number}"))
        for number in range(1201)
    ]

    outcomes = await bench.applier.apply(
        [added(1), *many, None, removed(1)], Origin.LIVE, bench.clock()
    )

    assert outcomes == {Outcome.APPLIED: 1203}
    assert await bench.reader.get("hall", MESSAGE) == {"reaction": {"👍": 1201}}
    assert await bench.reader.get(CHANNEL, MESSAGE) == {}


async def test_what_is_malformed_is_kept_with_its_reason(bench: Bench) -> None:
    """And its neighbours are applied."""
    malformed = Malformed(CHANNEL, "value is missing", '{"e": 3}')

    await bench.applier.apply([added(1), malformed, added(1, BEN)], Origin.LIVE, bench.clock())

    assert await bench.quarantined() == [
        {"channel": CHANNEL, "reason": "value is missing", "payload": '{"e": 3}'}
    ]
    assert await bench.reader.get(CHANNEL, MESSAGE) == {"reaction": {"👍": 2}}


@pytest.mark.parametrize("place", [0, 3, 6])
async def test_one_poison_event_stops_no_other(bench: Bench, place: int) -> None:
    """A batch Redis refuses is halved until the event stands alone; its channel is owed."""
    good = [added(1, replace(ANA, uuid=f"user{number}")) for number in range(6)]
    poison = added(1, replace(ANA, value="\ud83d"))
    events: list[Decoded] = [*good[:place], poison, *good[place:]]

    outcomes = await bench.applier.apply(events, Origin.LIVE, bench.clock())

    assert outcomes == {Outcome.APPLIED: 6}
    assert await bench.reader.get(CHANNEL, MESSAGE) == {"reaction": {"👍": 6}}
    [entry] = await bench.quarantined()
    assert "cannot be sent" in entry["reason"]
    assert set(await bench.tables.pending.read(CHANNEL)) == {"quarantined"}


async def test_a_channel_redis_refuses_does_not_stop_others(bench: Bench) -> None:
    """Somebody's list in the place of a hash: that message's events are kept apart, and owed."""
    broken = KEYS.counts(CHANNEL, MESSAGE)
    await cast("Any", bench.redis).rpush(broken, "not ours")

    await bench.applier.apply(
        [
            added(1),
            added(1, replace(ANA, message_timetoken="5")),
            added(1, replace(ANA, channel="hall")),
        ],
        Origin.LIVE,
        bench.clock(),
    )

    assert await bench.reader.get(CHANNEL, "5") == {"reaction": {"👍": 1}}
    assert await bench.reader.get("hall", MESSAGE) == {"reaction": {"👍": 1}}
    [entry] = await bench.quarantined()
    assert entry["reason"].startswith("Redis refused a command: WRONGTYPE")


async def test_one_answer_is_one_round_trip(bench: Bench) -> None:
    """However many channels it has: their scripts are sent together."""
    await bench.applier.apply(
        [added(1)], Origin.LIVE, bench.clock()
    )  # now the server knows the script
    redis, calls = cast("Any", bench.redis), 0
    execute = redis.pipeline

    def counted(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        return execute(*args, **options)

    redis.pipeline = counted
    events = [added(1, replace(ANA, channel=f"room{number}")) for number in range(30)]

    await bench.applier.apply(events, Origin.LIVE, bench.clock())

    assert calls == 1


async def test_a_batch_waits_for_redis(bench: Bench) -> None:
    """Out of memory for a while: held, then applied once."""
    await bench.redis.config_set("maxmemory", "1")
    applying = asyncio.create_task(bench.applier.apply([added(1)], Origin.LIVE, bench.clock()))
    await wait_until_redis_fails()
    assert not applying.done()

    await bench.redis.config_set("maxmemory", "0")

    assert await applying == {Outcome.APPLIED: 1}


async def test_what_waited_too_long_is_not_applied(bench: Bench) -> None:
    """A page held by a suspended machine: its tombstones may be gone, so it is read again."""
    received = bench.clock()
    bench.clock.now += SETTLE_SECONDS + 1

    with pytest.raises(StaleError, match="waited longer than 60 s"):
        await bench.applier.apply(
            [added(1), added(1, replace(ANA, channel="hall"))], Origin.BACKFILL, received
        )

    assert await bench.redis.keys() == []
