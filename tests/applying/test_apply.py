"""Each decoded event is applied, or quarantined with its reason."""

import asyncio
from typing import Any, cast

import pytest
from msgspec.structs import replace

from tests.bench.bench import KEYS, SETTLE_SECONDS, Bench
from tests.bench.waiting import wait_until_redis_fails
from tests.histories import ANA, BEN, CHANNEL, MESSAGE, added, removed
from tests.store.examples import counted_calls
from worker.domain.action import Identity, Origin
from worker.domain.entry import Outcome
from worker.domain.position import Cursor
from worker.errors import DamagedKeyError, ScriptRefusedError, StaleError
from worker.source.wire import Decoded, Malformed
from worker.store.batch import MAX_BATCH
from worker.store.script_call import CursorSave


def save(subscription: str) -> CursorSave:
    """Return what saves a subscription's cursor."""
    return CursorSave(subscription, Cursor("17600000001728660", 1))


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
    await bench.tables.channels.add([CHANNEL, "hall"])
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


async def test_one_answer_is_one_call(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """One script applies all its channels."""
    rooms = [replace(ANA, channel=f"room{number}") for number in range(30)]
    await bench.applier.apply([added(1, room) for room in rooms], Origin.LIVE, bench.clock())
    calls = counted_calls(bench.redis, monkeypatch)

    await bench.applier.apply([added(2, room) for room in rooms], Origin.LIVE, bench.clock())

    assert len(calls) == 1


async def test_a_cursor_is_saved_by_the_call_of_its_events(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So are those of several subscriptions."""
    await bench.applier.apply([added(1)], Origin.LIVE, bench.clock())
    calls = counted_calls(bench.redis, monkeypatch)
    saves = [save("a"), save("b")]

    await bench.applier.apply([added(1, BEN)], Origin.LIVE, bench.clock(), cursors=saves)

    assert len(calls) == 1
    assert [each.number for each in saves] == [1, 1]
    assert await bench.tables.cursors.held("ab") == {"a": 1, "b": 1}
    assert bench.retry.rollback_detector.acknowledged.saves == {"a": 1, "b": 1}


@pytest.mark.parametrize("reason", ["refused", "unsendable", "empty", "malformed", "several"])
async def test_a_cursor_is_saved_last(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    """After the marks that what came before it asks for, and after every other call."""
    hall = replace(ANA, channel="hall")
    await bench.tables.channels.add([CHANNEL, "hall"])
    await bench.applier.apply([added(1), added(1, hall)], Origin.LIVE, bench.clock())
    others: dict[str, list[Decoded]] = {
        "refused": [added(1, replace(hall, message_timetoken="5"))],
        "unsendable": [added(1, replace(hall, value="\ud83d"))],
        "empty": [added(1, replace(ANA, channel="new"))],
        "malformed": [Malformed(CHANNEL, "value is missing", "{}")],
        "several": [added(1, replace(hall, uuid=f"user{n}")) for n in range(MAX_BATCH)],
    }
    if reason == "refused":
        await bench.redis.set(KEYS.counts("hall", "5"), "not ours", ex=1_000)
    saved_after = await watched_saves(bench, monkeypatch)
    mine = save("s")

    decoded = [added(1, BEN), *others[reason]]
    await bench.applier.apply(decoded, Origin.LIVE, bench.clock(), cursors=[mine])

    *before, last = saved_after
    assert (set(before), last) == ({0}, 1)
    assert mine.number == 1
    assert await bench.reader.get(CHANNEL, MESSAGE) == {"reaction": {"👍": 2}}


async def watched_saves(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return how often the cursor was saved, after each call of a script, and each quarantine."""
    noted: list[int] = []

    def watched(command: Any) -> Any:
        async def do(*args: Any, **options: Any) -> Any:
            answer = await command(*args, **options)
            noted.append((await bench.tables.cursors.held("s"))["s"])
            return answer

        return do

    for command in ("evalsha", "xadd"):
        monkeypatch.setattr(bench.redis, command, watched(getattr(bench.redis, command)))
    return noted


@pytest.mark.parametrize("is_known", [True, False])
async def test_a_cursor_that_cannot_be_saved_quarantines_nothing(
    bench: Bench, is_known: bool
) -> None:
    """Another program wrote its key. The events are applied, and the error says why."""
    if is_known:
        await bench.applier.apply([added(1, BEN)], Origin.LIVE, bench.clock())
    await bench.redis.set(KEYS.cursor("s"), "not ours", ex=1_000)
    saves = [save("s"), save("t")]

    with pytest.raises(ScriptRefusedError, match="WRONGTYPE"):
        await bench.applier.apply([added(1)], Origin.LIVE, bench.clock(), cursors=saves)

    assert await bench.quarantined() == []
    assert await bench.reader.get(CHANNEL, MESSAGE) == {"reaction": {"👍": 1 + is_known}}
    assert [each.number for each in saves] == [None, 1]


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
