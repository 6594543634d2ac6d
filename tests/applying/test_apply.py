"""Each decoded event is applied, or quarantined with its reason."""

import asyncio
from typing import Any, cast

import pytest
from msgspec.structs import replace

from tests.bench.bench import SETTLE_SECONDS, Bench
from tests.bench.waiting import wait_until_redis_fails
from tests.histories import ANA, BEN, CHANNEL, MESSAGE, added, removed
from worker.domain.action import Identity, Origin
from worker.domain.entry import Outcome
from worker.errors import DamagedKeyError, StaleError
from worker.source.wire import Decoded, Malformed


async def test_events_of_many_channels_are_applied(bench: Bench) -> None:
    """Each channel's events keep their order. Several scripts carry them."""
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


async def test_a_malformed_event_is_quarantined(bench: Bench) -> None:
    """It keeps its reason. Its neighbours are applied."""
    malformed = Malformed(CHANNEL, "value is missing", '{"e": 3}')

    await bench.applier.apply([added(1), malformed, added(1, BEN)], Origin.LIVE, bench.clock())

    assert await bench.quarantined() == [
        {"channel": CHANNEL, "reason": "value is missing", "payload": '{"e": 3}'}
    ]
    assert await bench.reader.get(CHANNEL, MESSAGE) == {"reaction": {"👍": 2}}


@pytest.mark.parametrize("place", [0, 3, 6])
async def test_a_refused_event_stops_no_other(bench: Bench, place: int) -> None:
    """The batch is halved until the event stands alone. Its channel is owed a repair."""
    good = [added(1, replace(ANA, uuid=f"user{number}")) for number in range(6)]
    poison = added(1, replace(ANA, value="\ud83d"))
    events: list[Decoded] = [*good[:place], poison, *good[place:]]
    await bench.tables.channels.add([CHANNEL])

    outcomes = await bench.applier.apply(events, Origin.LIVE, bench.clock())

    assert outcomes == {Outcome.APPLIED: 6}
    assert await bench.reader.get(CHANNEL, MESSAGE) == {"reaction": {"👍": 6}}
    [entry] = await bench.quarantined()
    assert "cannot be sent" in entry["reason"]
    assert set(await bench.tables.pending.read(CHANNEL)) == {"quarantined"}


@pytest.mark.parametrize("origin", [Origin.LIVE, Origin.RECONCILE])
@pytest.mark.parametrize("kind", ["counts", "actions", "removed"])
async def test_a_damaged_message_stops_no_other(bench: Bench, kind: str, origin: Origin) -> None:
    """A list of another program stands in place of a hash.

    The channel is owed a repair. A repair itself fails with the name of the key.
    """
    broken = f"tally:{{{CHANNEL}}}:{kind}:{MESSAGE}"
    await cast("Any", bench.redis).rpush(broken, "not ours")
    await bench.redis.expire(broken, 1_000)
    noted: list[str] = []
    bench.tables.pending.add_listener(noted.extend)
    events = [
        added(1),
        added(1, replace(ANA, message_timetoken="5")),
        added(1, replace(ANA, channel="hall")),
    ]

    applying = bench.applier.apply(events, origin, bench.clock())
    if origin is Origin.LIVE:
        await applying
    else:
        with pytest.raises(DamagedKeyError) as raised:
            await applying
        assert raised.value.key == broken

    assert await bench.reader.get(CHANNEL, "5") == {"reaction": {"👍": 1}}
    assert await bench.reader.get("hall", MESSAGE) == {"reaction": {"👍": 1}}
    assert await bench.quarantined() == []
    assert set(await bench.tables.pending.read(CHANNEL)) == {"damaged_key"}
    assert noted == [CHANNEL]


async def test_one_answer_is_one_round_trip(bench: Bench) -> None:
    """The scripts of all its channels are sent together, once each of them has a message."""
    rooms = [replace(ANA, channel=f"room{number}") for number in range(30)]
    await bench.applier.apply([added(1, room) for room in rooms], Origin.LIVE, bench.clock())
    redis, calls = cast("Any", bench.redis), 0
    execute = redis.pipeline

    def counted(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        return execute(*args, **options)

    redis.pipeline = counted
    events = [added(2, room) for room in rooms]

    await bench.applier.apply(events, Origin.LIVE, bench.clock())

    assert calls == 1


async def test_a_batch_waits_for_redis(bench: Bench) -> None:
    """Redis has no memory for a while. Then the batch is applied once."""
    await bench.redis.config_set("maxmemory", "1")
    applying = asyncio.create_task(bench.applier.apply([added(1)], Origin.LIVE, bench.clock()))
    await wait_until_redis_fails()
    assert not applying.done()

    await bench.redis.config_set("maxmemory", "0")

    assert await applying == {Outcome.APPLIED: 1}


async def test_stale_events_are_not_applied(bench: Bench) -> None:
    """A suspended machine held a page. Its tombstones may be gone, so it is read again."""
    received = bench.clock()
    bench.clock.now += SETTLE_SECONDS + 1

    with pytest.raises(StaleError, match="waited longer than 60 s"):
        await bench.applier.apply(
            [added(1), added(1, replace(ANA, channel="hall"))], Origin.BACKFILL, received
        )

    assert await bench.redis.keys() == []
