"""The script and the rule agree on the same histories."""

from collections import Counter
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace
from redis.asyncio import Redis
from redis.exceptions import ReadOnlyError

from reaction_tally.journal import read_entry
from reaction_tally.keys import Keys, action_field, read_action_field
from tests.histories import (
    ANA,
    BEN,
    CHANNEL,
    MESSAGE,
    added,
    at,
    events,
    pruned,
    removed,
    restored,
)
from tests.ledger import Ledger, count_of
from tests.redis_server import RedisServer, free_port
from tests.rule_table import ROWS
from tests.store.examples import ON_A_REAL_SERVER, apply, outcomes_of
from tests.unclaimed import UnclaimedReader
from worker.domain.action import Added, Event, Identity, Origin, Pruned, Removed, Restored
from worker.domain.entry import ABSENT, Entry, Outcome
from worker.domain.position import Cursor
from worker.errors import DamagedKeyError, RedisUnavailableError, ScriptRefusedError
from worker.store.apply_script import Ttls
from worker.store.batch import MAX_BATCH
from worker.store.connection import connect
from worker.store.entries import Entries
from worker.store.script_call import CursorSave
from worker.store.store import Applied, Store

KEYS = Keys()
CEM = Identity(CHANNEL, MESSAGE, "reaction", "👍", "cem")


async def entries_of(redis: Redis, identities: set[Identity]) -> dict[Identity, Entry]:
    """Return the entries in Redis, without those that are absent."""
    asked = list(identities)
    entries = await Entries(redis, KEYS).read(CHANNEL, asked)
    return present(dict(zip(asked, entries, strict=True)))


def key_of(kind: str) -> str:
    """Return a key of the channel, or of its message."""
    names = {
        "counts": KEYS.counts(CHANNEL, MESSAGE),
        "actions": KEYS.actions(CHANNEL, MESSAGE),
        "removed": KEYS.removed(CHANNEL, MESSAGE),
        "messages": KEYS.messages(CHANNEL),
        "journal": KEYS.journal(CHANNEL),
        "head": KEYS.head(CHANNEL),
    }
    return names[kind]


async def count_in(redis: Redis, channel: str) -> int:
    """Return the count of the reaction to the channel's message."""
    return (await UnclaimedReader(redis).get(channel, MESSAGE))["reaction"]["👍"]


def present(entries: dict[Identity, Entry]) -> dict[Identity, Entry]:
    """Return the entries without those that are absent."""
    return {identity: entry for identity, entry in entries.items() if entry != ABSENT}


@pytest.mark.parametrize("row", ROWS)
async def test_each_row_of_the_rule_holds_in_redis(redis: Redis, row: str) -> None:
    """It holds in one batch, and event by event. Another user's count stays."""
    history, outcomes, end = ROWS[row]
    for batches in ([history], [[event] for event in history]):
        await redis.flushall()
        store = Store(redis, KEYS)
        await apply(store, [added(1, BEN)])

        seen: list[Outcome] = []
        for batch in batches:
            seen += outcomes_of(await apply(store, batch), batch)

        assert seen == outcomes
        assert await entries_of(redis, {ANA}) == ({} if end == ABSENT else {ANA: end})
        assert await UnclaimedReader(redis).get(CHANNEL, MESSAGE) == {
            "reaction": {"👍": 1 + count_of(end)}
        }


@ON_A_REAL_SERVER
@given(st.lists(st.lists(events, min_size=1, max_size=12), max_size=6))
@example(
    [[added(1), removed(1), restored(1, 1), pruned(1)], [removed(2), added(2), restored(1, 2)]]
)
async def test_the_script_agrees_with_the_rule(
    real_redis: Redis, batches: list[list[Event]]
) -> None:
    """Outcomes, entries and counts are equal after each batch."""
    await real_redis.flushall()
    store, reader, ledger = Store(real_redis, KEYS), UnclaimedReader(real_redis), Ledger()

    for batch in batches:
        applied = await apply(store, batch)

        assert outcomes_of(applied, batch) == ledger.apply(batch)
        entries = await entries_of(real_redis, set(ledger.entries))
        assert entries == present(ledger.entries)
        messages = sorted({event.identity.message_timetoken for event in batch})
        assert await reader.get_many(CHANNEL, messages) == {
            message: ledger.counts(CHANNEL, message) for message in messages
        }


WORDS = {Added: "added", Removed: "removed", Pruned: "pruned", Restored: "restored"}
CHANGES = (Outcome.APPLIED, Outcome.SUPERSEDED, Outcome.EARLY)
STEPS = {"added": 1, "restored": 1, "removed": -1, "pruned": -1}


def changes_of(batch: list[Event], ledger: Ledger) -> list[tuple[str, ...]]:
    """Return the changes that the journal must have of a batch, without counts; sorted."""
    changes = []
    for event, outcome in zip(batch, ledger.apply(batch), strict=True):
        if outcome not in CHANGES:
            continue
        identity = event.identity
        message = identity.message_timetoken
        field = action_field(identity.type, identity.value, identity.uuid)
        word = WORDS[type(event)]
        changes.append((word, outcome.value, event.action_timetoken, message, field))
    return sorted(changes)


@ON_A_REAL_SERVER
@given(st.lists(st.lists(events, min_size=1, max_size=8), max_size=5))
@example(
    [
        [added(1), pruned(1)],
        [removed(2), added(1), restored(1, 2)],
        [added(4), added(5), removed(9, BEN)],
    ]
)
async def test_the_journal_leads_to_the_counts(
    real_redis: Redis, batches: list[list[Event]]
) -> None:
    """Each entry names the entry before it, and every change with its count."""
    await real_redis.flushall()
    store, reader, ledger = Store(real_redis, KEYS), UnclaimedReader(real_redis), Ledger()
    heads, expected_changes = ["0-0"], []
    for batch in batches:
        applied = await apply(store, batch, origin=Origin.BACKFILL)
        assert applied.head_before == heads[-1]
        changes = changes_of(batch, ledger)
        assert (applied.head_after != heads[-1]) == bool(changes)
        if changes:
            heads.append(applied.head_after)
            expected_changes.append(changes)

    counts = Counter[tuple[str, str, str]]()
    position, journaled = "0-0", list[list[tuple[str, ...]]]()
    for entry_id, fields in await cast("Any", real_redis).xrange(KEYS.journal(CHANNEL)):
        assert (fields.pop("after"), fields.pop("origin")) == (position, "backfill")
        assert list(fields) == [str(number) for number in range(len(fields))]
        journaled.append([])
        for change in fields.values():
            event, outcome, timetoken, count, message, field = change.split(" ", 5)
            journaled[-1].append((event, outcome, timetoken, message, field))
            type, value, _ = read_action_field(field)
            counts[message, type, value] += STEPS[event] if outcome == "applied" else 0
            assert int(count) == counts[message, type, value]
        position = entry_id

    assert [sorted(changes) for changes in journaled] == expected_changes
    assert position == heads[-1] == (await real_redis.get(KEYS.head(CHANNEL)) or "0-0")
    for (message, type, value), count in counts.items():
        tallies = await reader.get(CHANNEL, message)
        assert tallies.get(type, {}).get(value, 0) == count


async def test_a_batch_that_changes_nothing_is_not_journaled(redis: Redis) -> None:
    """If nothing ever changed, there is no key either."""
    store = Store(redis, KEYS)
    nothing = await apply(store, [pruned(1)], origin=Origin.RECONCILE)
    assert (nothing.head_before, nothing.head_after, await redis.keys()) == ("0-0", "0-0", [])

    first = await apply(store, [added(1)])
    again = await apply(store, [added(1), pruned(2)])

    assert again.head_before == again.head_after == first.head_after
    assert await redis.xlen(KEYS.journal(CHANNEL)) == 1


async def test_the_index_changes_only_with_its_message(redis: Redis) -> None:
    """Other messages of the batch had a duplicate, and an unmatched event."""
    store = Store(redis, KEYS)
    known, unknown = replace(BEN, message_timetoken="5"), replace(BEN, message_timetoken="6")
    await apply(store, [added(1, known)])

    again = Added(known, at(1), at(4_000_000))
    await apply(store, [again, pruned(1, unknown), added(1)])

    index = dict(await cast("Any", redis).zrange(KEYS.messages(CHANNEL), 0, -1, withscores=True))
    assert index == {"5": int(at(1)) // 10_000, MESSAGE: int(at(1)) // 10_000}


async def test_a_message_is_as_new_as_its_newest_event(redis: Redis) -> None:
    """PubNub's time in milliseconds counts. An inferred event has the time of its action."""
    store = Store(redis, KEYS)
    await apply(store, [added(1), removed(2_000_000, BEN), added(1, CEM)])
    assert await redis.zscore(KEYS.messages(CHANNEL), MESSAGE) == int(at(2_000_001)) // 10_000

    await cast("Any", redis).zrem(KEYS.messages(CHANNEL), MESSAGE)
    await apply(store, [restored(1_000_000, 2_000_000, BEN)], origin=Origin.RECONCILE)
    assert await redis.zscore(KEYS.messages(CHANNEL), MESSAGE) == int(at(1_000_000)) // 10_000

    await cast("Any", redis).zrem(KEYS.messages(CHANNEL), MESSAGE)
    await apply(store, [pruned(1)], origin=Origin.RECONCILE)
    assert await redis.zscore(KEYS.messages(CHANNEL), MESSAGE) == int(at(1)) // 10_000


@pytest.mark.parametrize(
    ("published", "milliseconds"),
    [("123", 0), ("1234", 0), ("12345", 1), ("1" * 18, int("1" * 14))],
)
async def test_a_timetoken_of_any_length_has_milliseconds(
    redis: Redis, published: str, milliseconds: int
) -> None:
    """They are all digits but the last four; 0 if no digit is left."""
    await apply(Store(redis, KEYS), [Added(ANA, "1", published)])

    assert await redis.zscore(KEYS.messages(CHANNEL), MESSAGE) == milliseconds


async def test_tombstones_live_from_the_last_removal(redis: Redis) -> None:
    """A removal of this message renews it; nothing else does. Tallies stay for ever."""
    store = Store(redis, KEYS, Ttls(tombstone_seconds=10_000, journal_seconds=50_000))
    removals = KEYS.removed(CHANNEL, MESSAGE)

    await apply(store, [added(1), removed(1)])
    await redis.expire(removals, 1_000)
    await apply(store, [removed(1), added(2)])

    assert 9_000 < await redis.ttl(removals) <= 10_000
    await redis.expire(removals, 5_000)
    other = replace(ANA, message_timetoken="5")
    await apply(store, [added(1, other), removed(1, other), added(3)])

    assert 4_000 < await redis.ttl(removals) <= 5_000
    assert 9_000 < await redis.ttl(KEYS.removed(CHANNEL, "5")) <= 10_000
    assert await redis.ttl(KEYS.counts(CHANNEL, MESSAGE)) == -1
    assert 49_000 < await redis.ttl(KEYS.journal(CHANNEL)) <= 50_000


async def test_the_journal_keeps_what_is_young(redis: Redis) -> None:
    """Entries younger than its life stay; of older ones at most a node of the stream."""
    store = Store(redis, KEYS, Ttls(journal_seconds=10_000))
    pipe = cast("Any", redis).pipeline(transaction=False)
    now, _ = await redis.time()
    for age in (10_300, 9_700):
        for number in range(200):
            pipe.xadd(KEYS.journal(CHANNEL), {"old": "1"}, id=f"{(now - age) * 1000}-{number + 1}")
    await pipe.execute()

    await apply(store, [added(1)])

    oldest_young = (now - 10_000) * 1000
    young = await cast("Any", redis).xrange(KEYS.journal(CHANNEL), min=oldest_young)
    assert len(young) == 201
    assert await redis.xlen(KEYS.journal(CHANNEL)) < 301


async def test_a_write_trims_a_journal_to_its_own_life(redis: Redis) -> None:
    """Of two processes the one with the shorter life takes entries that the other one kept."""
    long, short = (Store(redis, KEYS, Ttls(journal_seconds=life)) for life in (50_000, 1_000))
    journal = cast("Any", redis)
    now, _ = await redis.time()
    pipe = journal.pipeline(transaction=False)
    for number in range(200):
        pipe.xadd(KEYS.journal(CHANNEL), {"old": "1"}, id=f"{(now - 9_000) * 1000}-{number + 1}")
    await pipe.execute()

    await apply(long, [added(1)])
    assert await redis.xlen(KEYS.journal(CHANNEL)) == 201
    await apply(short, [removed(1)])

    assert await redis.xlen(KEYS.journal(CHANNEL)) < 103
    assert await redis.ttl(KEYS.journal(CHANNEL)) <= 1_000


async def test_a_full_batch_is_applied(real_redis: Redis) -> None:
    """So is one with as many messages. One event more is refused before it is sent."""
    store, reader = Store(real_redis, KEYS), UnclaimedReader(real_redis)
    one = [
        added(1, Identity(CHANNEL, MESSAGE, "reaction", str(n), "ana")) for n in range(MAX_BATCH)
    ]
    many = [
        added(1, Identity(CHANNEL, str(10**16 + n), "reaction", "👍", "ana"))
        for n in range(MAX_BATCH)
    ]

    await apply(store, one)
    await apply(store, many)

    assert len((await reader.get(CHANNEL, MESSAGE))["reaction"]) == MAX_BATCH
    assert await real_redis.zcard(KEYS.messages(CHANNEL)) == MAX_BATCH + 1
    with pytest.raises(ValueError, match=f"no more than {MAX_BATCH} events"):
        await apply(store, [*one, added(1)])


@pytest.mark.parametrize("broken", ["counts", "actions", "removed", "messages", "journal", "head"])
async def test_a_refused_batch_writes_nothing(redis: Redis, broken: str) -> None:
    """A key of another type is found before the first write: Redis does not roll back."""
    key = key_of(broken)
    await cast("Any", redis).rpush(key, "not ours")
    await redis.expire(key, 1_000)

    with pytest.raises(DamagedKeyError) as raised:
        await apply(Store(redis, KEYS), [added(1), removed(1), added(2)])
    assert (raised.value.channel, raised.value.key) == (CHANNEL, key)

    assert await redis.keys() == [key]


@pytest.mark.parametrize("broken", ["counts", "actions", "removed", "messages", "journal", "head"])
async def test_a_refused_channel_stops_no_other(redis: Redis, broken: str) -> None:
    """One call carries all three. Nothing is written of the one that is refused."""
    channels = ("hall", CHANNEL, "attic")
    key = key_of(broken)
    await cast("Any", redis).rpush(key, "not ours")
    await redis.expire(key, 1_000)
    batches = [(channel, [added(1, replace(ANA, channel=channel))]) for channel in channels]

    results, _ = await Store(redis, KEYS).apply_all(batches, Origin.LIVE)

    first, refusal, last = results
    assert isinstance(refusal, DamagedKeyError)
    assert (refusal.channel, refusal.key) == (CHANNEL, key)
    for channel, result in (("hall", first), ("attic", last)):
        assert isinstance(result, Applied)
        assert (result.channel, result.letters) == (channel, "a")
        assert await count_in(redis, channel) == 1
    held = await cast("Any", redis).keys()
    assert [name for name in held if f"{{{CHANNEL}}}" in name] == [key]


async def test_a_head_that_is_no_id_is_damaged(redis: Redis) -> None:
    """The next entry of the journal would name it as the one before."""
    await cast("Any", redis).set(KEYS.head(CHANNEL), "not ours", ex=1_000)

    with pytest.raises(DamagedKeyError, match="what the worker never writes") as raised:
        await apply(Store(redis, KEYS), [added(1)])

    assert raised.value.key == KEYS.head(CHANNEL)
    assert await redis.keys() == [KEYS.head(CHANNEL)]


@pytest.mark.parametrize("event", [removed(1), pruned(1)])
async def test_a_count_that_is_lost_never_becomes_negative(redis: Redis, event: Event) -> None:
    """Neither in the hash nor in the journal: an eviction or a hand deleted it."""
    store = Store(redis, KEYS)
    await apply(store, [added(1)])
    await redis.delete(KEYS.counts(CHANNEL, MESSAGE))

    await apply(store, [event])

    entries = await cast("Any", redis).xrange(KEYS.journal(CHANNEL))
    _, fields = entries[-1]
    assert read_entry("1-1", fields).changes[0].count == 0
    assert await redis.exists(KEYS.counts(CHANNEL, MESSAGE)) == 0


async def test_a_replica_refuses_the_whole_call() -> None:
    """A client that hears so connects anew: the address may lead to the new primary."""
    with RedisServer() as server:
        async with connect(server.url) as redis:
            await cast("Any", redis).replicaof("127.0.0.1", str(free_port()))

            with pytest.raises(RedisUnavailableError) as raised:
                await apply(Store(redis, KEYS), [added(1)])

    assert isinstance(raised.value.__cause__, ReadOnlyError)


async def test_a_channel_tells_whether_it_may_be_unknown(redis: Redis) -> None:
    """Its index had no message, or a live call changes nothing: it may repeat one that was lost."""
    store, batches = Store(redis, KEYS), [(CHANNEL, [added(1)])]

    (first,), _ = await store.apply_all(batches, Origin.LIVE)
    (again,), _ = await store.apply_all(batches, Origin.LIVE)
    (listed,), _ = await store.apply_all(batches, Origin.BACKFILL)
    (more,), _ = await store.apply_all([(CHANNEL, [added(2, BEN)])], Origin.LIVE)

    results = cast("list[Applied]", [first, again, listed, more])
    assert [result.may_be_unknown for result in results] == [True, True, False, False]


@pytest.mark.parametrize("reason", ["a new channel", "a refusal"])
async def test_a_cursor_waits_for_what_must_be_written_first(redis: Redis, reason: str) -> None:
    """A mark of a gap. Otherwise the call that applies the events saves the cursor."""
    store, save = Store(redis, KEYS), CursorSave("s", Cursor("1", 1))
    await apply(store, [added(1)])
    hall = replace(ANA, channel="hall")
    batches = [(CHANNEL, [added(2, BEN)]), ("hall", [added(1, hall)])]
    if reason == "a refusal":
        await apply(store, [added(1, replace(hall, uuid="ben"))], channel="hall")
        await cast("Any", redis).delete(KEYS.actions("hall", MESSAGE))
        await cast("Any", redis).set(KEYS.actions("hall", MESSAGE), "not ours", ex=1_000)

    _, numbers = await store.apply_all(batches, Origin.LIVE, [save])
    assert numbers == []
    assert not await redis.exists(KEYS.cursor("s"))
    _, numbers = await store.apply_all([(CHANNEL, [added(3, BEN)])], Origin.LIVE, [save])
    assert numbers == [1]
    assert await redis.exists(KEYS.cursor("s"))


async def test_a_count_that_is_no_number_is_refused(redis: Redis) -> None:
    """Nothing of the batch is written."""
    await cast("Any", redis).hset(KEYS.counts(CHANNEL, MESSAGE), "reaction:👍", "many")

    with pytest.raises(DamagedKeyError) as raised:
        await apply(Store(redis, KEYS), [added(1)])
    assert raised.value.key == KEYS.counts(CHANNEL, MESSAGE)

    assert not await redis.exists(KEYS.actions(CHANNEL, MESSAGE))


async def test_a_lone_surrogate_is_refused(redis: Redis) -> None:
    """UTF-8 has none, so it can never be applied."""
    surrogate = Identity(CHANNEL, MESSAGE, "reaction", "\ud83d", "ana")

    with pytest.raises(ScriptRefusedError):
        await apply(Store(redis, KEYS), [added(1), added(1, surrogate)])

    assert await redis.keys() == []


async def test_a_script_that_redis_forgot_is_sent_again(redis: Redis) -> None:
    """That happens after SCRIPT FLUSH, or after a failover."""
    store = Store(redis, KEYS)
    await apply(store, [added(1)])

    await redis.script_flush()
    applied = await apply(store, [removed(1)])

    assert applied.letters == "a"


async def test_a_redis_without_room_is_unavailable(real_redis: Redis) -> None:
    """Memory may come back. Nothing of the batch is written."""
    store = Store(real_redis, KEYS)
    await apply(store, [added(1)])
    await real_redis.config_set("maxmemory", "1")
    try:
        with pytest.raises(RedisUnavailableError, match="maxmemory"):
            await apply(store, [removed(1), added(2)])
    finally:
        await real_redis.config_set("maxmemory", "0")

    assert await entries_of(real_redis, {ANA}) == {ANA: Entry(live=at(1))}
