"""The script does what the rule does: both are fed the same histories."""

from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from tests.domain.test_the_rule import ROWS
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
    steady,
)
from tests.ledger import Ledger, count_of
from worker.domain.action import Added, Event, Identity, Origin, Pruned, Removed, Restored
from worker.domain.entry import ABSENT, Entry, Outcome
from worker.errors import RedisUnavailableError, ScriptRefusedError
from worker.store.batch import MAX_BATCH
from worker.store.keys import Keys, action_field, read_action_field
from worker.store.reader import TallyReader
from worker.store.store import Store, Ttls

KEYS = Keys()
CEM = Identity(CHANNEL, MESSAGE, "reaction", "👍", "cem")
# On a real server alone, for that is the proof; every example empties it itself.
CONTRACT = settings(
    steady,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


async def entries_of(redis: Redis, identities: set[Identity]) -> dict[Identity, Entry]:
    """Return the entries Redis holds, those absent left out."""
    pipe = cast("Any", redis).pipeline(transaction=False)
    for identity in (asked := list(identities)):
        field = action_field(identity.type, identity.value, identity.uuid)
        pipe.hget(KEYS.actions(CHANNEL, identity.message_timetoken), field)
        pipe.hget(KEYS.removed(CHANNEL, identity.message_timetoken), field)
    told = await pipe.execute()
    entries = map(Entry, told[::2], told[1::2])
    return {
        identity: entry for identity, entry in zip(asked, entries, strict=True) if entry != ABSENT
    }


@pytest.mark.parametrize("row", ROWS)
async def test_each_row_of_the_rule_holds_in_redis(redis: Redis, row: str) -> None:
    """In one batch, and event by event; who else is counted there stays counted."""
    history, outcomes, end = ROWS[row]
    for batches in ([history], [[event] for event in history]):
        await redis.flushall()
        store = Store(redis, KEYS)
        await store.apply(CHANNEL, [added(1, BEN)], Origin.LIVE)

        told = [
            outcome
            for batch in batches
            for outcome in (await store.apply(CHANNEL, batch, Origin.LIVE)).outcomes
        ]

        assert told == outcomes
        assert await entries_of(redis, {ANA}) == ({} if end == ABSENT else {ANA: end})
        assert await TallyReader(redis).get(CHANNEL, MESSAGE) == {
            "reaction": {"👍": 1 + count_of(end)}
        }


@CONTRACT
@given(st.lists(st.lists(events, min_size=1, max_size=12), max_size=6))
@example(
    [[added(1), removed(1), restored(1, 1), pruned(1)], [removed(2), added(2), restored(1, 2)]]
)
async def test_the_script_agrees_with_the_rule(
    real_redis: Redis, batches: list[list[Event]]
) -> None:
    """Outcomes, entries and counts are equal after every batch."""
    await real_redis.flushall()
    store, reader, ledger = Store(real_redis, KEYS), TallyReader(real_redis), Ledger()

    for batch in batches:
        applied = await store.apply(CHANNEL, batch, Origin.LIVE)

        assert list(applied.outcomes) == ledger.apply(batch)
        entries = {identity: entry for identity, entry in ledger.entries.items() if entry != ABSENT}
        assert await entries_of(real_redis, set(ledger.entries)) == entries
        messages = sorted({event.identity.message_timetoken for event in batch})
        assert await reader.get_many(CHANNEL, messages) == {
            message: ledger.counts(CHANNEL, message) for message in messages
        }


WORDS = {Added: "added", Removed: "removed", Pruned: "pruned", Restored: "restored"}
CHANGES = (Outcome.APPLIED, Outcome.SUPERSEDED, Outcome.EARLY)
STEPS = {"added": 1, "restored": 1, "removed": -1, "pruned": -1}


def changes_of(batch: list[Event], ledger: Ledger) -> list[tuple[str, ...]]:
    """Return what the journal has to tell of a batch but for the counts, sorted."""
    told = []
    for event, outcome in zip(batch, ledger.apply(batch), strict=True):
        it = event.identity
        if outcome in CHANGES:
            field = action_field(it.type, it.value, it.uuid)
            told.append(
                (
                    WORDS[type(event)],
                    outcome.value,
                    event.action_timetoken,
                    it.message_timetoken,
                    field,
                )
            )
    return sorted(told)


@CONTRACT
@given(st.lists(st.lists(events, min_size=1, max_size=8), max_size=5))
@example(
    [
        [added(1), pruned(1)],
        [removed(2), added(1), restored(1, 2)],
        [added(4), added(5), removed(9, BEN)],
    ]
)
async def test_the_journal_tells_every_count(real_redis: Redis, batches: list[list[Event]]) -> None:
    """Following the journal from nothing ends at the counts; each entry names the one before, and what happened."""
    await real_redis.flushall()
    store, reader, ledger = Store(real_redis, KEYS), TallyReader(real_redis), Ledger()
    heads, expected_changes = ["0-0"], []
    for batch in batches:
        applied = await store.apply(CHANNEL, batch, Origin.BACKFILL)
        assert applied.head_before == heads[-1]
        changes = changes_of(batch, ledger)
        assert (applied.head_after != heads[-1]) == bool(changes)
        if changes:
            heads.append(applied.head_after)
            expected_changes.append(changes)

    counts: dict[tuple[str, str, str], int] = {}
    position, told_changes = "0-0", list[list[tuple[str, ...]]]()
    for entry_id, fields in await cast("Any", real_redis).xrange(KEYS.journal(CHANNEL)):
        assert fields.pop("after") == position
        assert fields.pop("origin") == "backfill"
        assert list(fields) == [str(number) for number in range(len(fields))]
        told_changes.append([])
        for number in fields:
            event, outcome, timetoken, count, message, field = fields[number].split(" ", 5)
            told_changes[-1].append((event, outcome, timetoken, message, field))
            type, value, _ = read_action_field(field)
            step = STEPS[event] if outcome == "applied" else 0
            assert int(count) == counts.get((message, type, value), 0) + step
            counts[message, type, value] = int(count)
        position = entry_id

    assert [sorted(changes) for changes in told_changes] == expected_changes
    assert position == heads[-1] == (await real_redis.get(KEYS.head(CHANNEL)) or "0-0")
    told = {key: count for key, count in counts.items() if count}
    for message in {key[0] for key in counts} or {MESSAGE}:
        expected: dict[str, dict[str, int]] = {}
        for (at_message, type, value), count in told.items():
            if at_message == message:
                expected.setdefault(type, {})[value] = count
        assert await reader.get(CHANNEL, message) == expected


async def test_a_batch_that_changes_nothing_is_not_journaled(redis: Redis) -> None:
    """A follower hears of changes only; where nothing ever changed there is no key."""
    store = Store(redis, KEYS)
    nothing = await store.apply(CHANNEL, [pruned(1)], Origin.RECONCILE)
    assert (nothing.head_before, nothing.head_after, await redis.keys()) == ("0-0", "0-0", [])

    first = await store.apply(CHANNEL, [added(1)], Origin.LIVE)
    again = await store.apply(CHANNEL, [added(1), pruned(2)], Origin.LIVE)

    assert again.head_before == again.head_after == first.head_after
    assert await redis.xlen(KEYS.journal(CHANNEL)) == 1


async def test_only_what_changed_is_new_in_the_index(redis: Redis) -> None:
    """Not what stands beside it in the batch: a message nobody ever reacted to, one whose reaction was known."""
    store = Store(redis, KEYS)
    known, unknown = replace(BEN, message_timetoken="5"), replace(BEN, message_timetoken="6")
    await store.apply(CHANNEL, [added(1, known)], Origin.LIVE)

    again = Added(known, at(1), at(4_000_000))
    await store.apply(CHANNEL, [again, pruned(1, unknown), added(1)], Origin.LIVE)

    index = dict(await cast("Any", redis).zrange(KEYS.messages(CHANNEL), 0, -1, withscores=True))
    assert index == {"5": int(at(1)) // 10_000, MESSAGE: int(at(1)) // 10_000}


async def test_a_batch_may_take_and_bring_back_at_once(redis: Redis) -> None:
    """Of several messages, every kind of change in each; nothing of one is lost over another."""
    store, ledger = Store(redis, KEYS), Ledger()
    people = [replace(ANA, uuid=f"user{n}", message_timetoken=str(5 + n % 2)) for n in range(8)]
    first: list[Event] = [event for one in people for event in (added(1, one), added(3, one))]
    second: list[Event] = [removed(3, one) for one in people[:4]]
    third: list[Event] = [
        *(restored(2, 3, one) for one in people[:2]),
        *(removed(4, one) for one in people[2:4]),
        *(pruned(3, one) for one in people[4:6]),
        *(removed(3, one) for one in people[6:]),
        added(1, replace(ANA, value="🎉", message_timetoken="5")),
    ]
    for batch in (first, second, third):
        assert list((await store.apply(CHANNEL, batch, Origin.LIVE)).outcomes) == ledger.apply(
            batch
        )

    entries = {identity: entry for identity, entry in ledger.entries.items() if entry != ABSENT}
    assert await entries_of(redis, set(ledger.entries)) == entries
    assert await TallyReader(redis).get_many(CHANNEL, ["5", "6"]) == {
        message: ledger.counts(CHANNEL, message) for message in ("5", "6")
    }


async def test_the_index_knows_each_messages_newest_event(redis: Redis) -> None:
    """The score is PubNub's time in milliseconds; it never goes back, and stays when the count is zero."""
    store = Store(redis, KEYS)

    await store.apply(CHANNEL, [added(2_000_000), removed(2_000_000), added(1)], Origin.LIVE)

    score = await redis.zscore(KEYS.messages(CHANNEL), MESSAGE)
    assert score == int(at(2_000_001)) // 10_000
    assert not await redis.exists(KEYS.counts(CHANNEL, MESSAGE))


async def test_a_message_is_as_new_as_its_newest_event(redis: Redis) -> None:
    """Wherever in a batch that stands; what is inferred is as old as its action, for nobody told it."""
    store = Store(redis, KEYS)
    await store.apply(CHANNEL, [added(1), removed(2_000_000, BEN), added(1, CEM)], Origin.LIVE)
    assert await redis.zscore(KEYS.messages(CHANNEL), MESSAGE) == int(at(2_000_001)) // 10_000

    await cast("Any", redis).zrem(KEYS.messages(CHANNEL), MESSAGE)
    await store.apply(CHANNEL, [restored(1_000_000, 2_000_000, BEN)], Origin.RECONCILE)
    assert await redis.zscore(KEYS.messages(CHANNEL), MESSAGE) == int(at(1_000_000)) // 10_000

    await cast("Any", redis).zrem(KEYS.messages(CHANNEL), MESSAGE)
    await store.apply(CHANNEL, [pruned(1)], Origin.RECONCILE)
    assert await redis.zscore(KEYS.messages(CHANNEL), MESSAGE) == int(at(1)) // 10_000


@pytest.mark.parametrize(
    ("told", "milliseconds"), [("123", 0), ("1234", 0), ("12345", 1), ("1" * 18, int("1" * 14))]
)
async def test_a_timetoken_of_any_length_has_milliseconds(
    redis: Redis, told: str, milliseconds: int
) -> None:
    """All but its last four digits; where nothing is left, none."""
    await Store(redis, KEYS).apply(CHANNEL, [Added(ANA, "1", told)], Origin.LIVE)

    assert await redis.zscore(KEYS.messages(CHANNEL), MESSAGE) == milliseconds


async def test_tombstones_live_from_the_last_removal(redis: Redis) -> None:
    """A tombstone has a life, renewed by each removal of the message; the tallies have none."""
    store = Store(redis, KEYS, Ttls(tombstone_seconds=10_000, journal_seconds=50_000))
    removals = KEYS.removed(CHANNEL, MESSAGE)

    await store.apply(CHANNEL, [added(1), removed(1)], Origin.LIVE)
    await redis.expire(removals, 1_000)
    await store.apply(CHANNEL, [removed(1), added(2)], Origin.LIVE)

    assert 9_000 < await redis.ttl(removals) <= 10_000
    await redis.expire(removals, 5_000)
    await store.apply(CHANNEL, [added(3)], Origin.LIVE)

    assert 4_000 < await redis.ttl(removals) <= 5_000
    assert await redis.ttl(KEYS.counts(CHANNEL, MESSAGE)) == -1
    assert 49_000 < await redis.ttl(KEYS.journal(CHANNEL)) <= 50_000


async def test_only_a_removal_renews_the_life_of_tombstones(redis: Redis) -> None:
    """One of another message in the same batch does not."""
    store = Store(redis, KEYS, Ttls(tombstone_seconds=10_000))
    other = replace(ANA, message_timetoken="5")
    await store.apply(CHANNEL, [added(1), removed(1)], Origin.LIVE)
    await redis.expire(KEYS.removed(CHANNEL, MESSAGE), 5_000)

    await store.apply(CHANNEL, [added(1, other), removed(1, other), added(2)], Origin.LIVE)

    assert 4_000 < await redis.ttl(KEYS.removed(CHANNEL, MESSAGE)) <= 5_000
    assert 9_000 < await redis.ttl(KEYS.removed(CHANNEL, "5")) <= 10_000


async def test_the_journal_forgets_what_is_old(redis: Redis) -> None:
    """Entries older than the journal's life, by Redis's clock, go as new ones come."""
    store = Store(redis, KEYS, Ttls(journal_seconds=1000))
    pipe = cast("Any", redis).pipeline(transaction=False)
    for number in range(1, 301):
        pipe.xadd(KEYS.journal(CHANNEL), {"old": "1"}, id=f"{number}-0")
    await pipe.execute()

    for place in range(1, 4):
        await store.apply(CHANNEL, [added(place)], Origin.LIVE)

    # MINID ~ leaves at most the part of a node of the stream, of 100 entries.
    assert await redis.xlen(KEYS.journal(CHANNEL)) < 103


async def test_the_journal_keeps_what_is_young(redis: Redis) -> None:
    """Only what is older than its life goes."""
    store = Store(redis, KEYS, Ttls(journal_seconds=10_000))
    pipe = cast("Any", redis).pipeline(transaction=False)
    now, _ = await redis.time()
    for age in (10_300, 9_700):
        for number in range(200):
            pipe.xadd(KEYS.journal(CHANNEL), {"old": "1"}, id=f"{(now - age) * 1000}-{number + 1}")
    await pipe.execute()

    await store.apply(CHANNEL, [added(1)], Origin.LIVE)

    kept = [entry_id for entry_id, _ in await cast("Any", redis).xrange(KEYS.journal(CHANNEL))]
    young = [
        entry_id for entry_id in kept if int(entry_id.partition("-")[0]) > (now - 10_000) * 1000
    ]
    assert len(young) == 201
    assert len(kept) < 301


async def test_a_full_batch_is_applied(real_redis: Redis) -> None:
    """The limit itself works, for one message as for many; one more is refused before Redis sees it."""
    store, reader = Store(real_redis, KEYS), TallyReader(real_redis)
    one = [
        added(1, Identity(CHANNEL, MESSAGE, "reaction", str(n), "ana")) for n in range(MAX_BATCH)
    ]
    many = [
        added(1, Identity(CHANNEL, str(10**16 + n), "reaction", "👍", "ana"))
        for n in range(MAX_BATCH)
    ]

    await store.apply(CHANNEL, one, Origin.LIVE)
    await store.apply(CHANNEL, many, Origin.LIVE)

    assert len((await reader.get(CHANNEL, MESSAGE))["reaction"]) == MAX_BATCH
    assert await redis_length(real_redis) == MAX_BATCH + 1
    with pytest.raises(ValueError, match="500 is the limit"):
        await store.apply(CHANNEL, [*one, added(1)], Origin.LIVE)


async def redis_length(redis: Redis) -> int:
    """Return how many messages the index knows."""
    return int(await redis.zcard(KEYS.messages(CHANNEL)))


@pytest.mark.parametrize("broken", ["counts", "actions", "removed", "messages", "journal", "head"])
async def test_a_refused_batch_writes_nothing(redis: Redis, broken: str) -> None:
    """A key of another type is found before the first write: Redis does not seen back."""
    keys = {
        "counts": KEYS.counts(CHANNEL, MESSAGE),
        "actions": KEYS.actions(CHANNEL, MESSAGE),
        "removed": KEYS.removed(CHANNEL, MESSAGE),
        "messages": KEYS.messages(CHANNEL),
        "journal": KEYS.journal(CHANNEL),
        "head": KEYS.head(CHANNEL),
    }
    await cast("Any", redis).rpush(keys[broken], "not ours")
    await redis.expire(keys[broken], 1_000)

    with pytest.raises(ScriptRefusedError):
        await Store(redis, KEYS).apply(CHANNEL, [added(1), removed(1), added(2)], Origin.LIVE)

    assert await redis.keys() == [keys[broken]]


async def test_a_count_that_is_no_number_is_refused(redis: Redis) -> None:
    """Somebody else's text in a count stops the batch, not the count's neighbours half-way."""
    await cast("Any", redis).hset(KEYS.counts(CHANNEL, MESSAGE), "reaction:👍", "many")

    sentence = f"the count of a tally is not a number in {KEYS.counts(CHANNEL, MESSAGE)}$"
    with pytest.raises(ScriptRefusedError, match=sentence.replace("{", "\\{")):
        await Store(redis, KEYS).apply(CHANNEL, [added(1)], Origin.LIVE)

    assert not await redis.exists(KEYS.actions(CHANNEL, MESSAGE))


async def test_a_lone_surrogate_is_refused_not_sent(redis: Redis) -> None:
    """UTF-8 cannot carry it, so it can never be applied."""
    poison = Identity(CHANNEL, MESSAGE, "reaction", "\ud83d", "ana")

    with pytest.raises(ScriptRefusedError):
        await Store(redis, KEYS).apply(CHANNEL, [added(1), added(1, poison)], Origin.LIVE)

    assert await redis.keys() == []


async def test_a_script_redis_forgot_is_sent_again(redis: Redis) -> None:
    """SCRIPT FLUSH, or a failover to a replica that never saw it, is no error."""
    store = Store(redis, KEYS)
    await store.apply(CHANNEL, [added(1)], Origin.LIVE)

    await redis.script_flush()
    applied = await store.apply(CHANNEL, [removed(1)], Origin.LIVE)

    assert [outcome.value for outcome in applied.outcomes] == ["applied"]


async def test_a_redis_without_room_is_unavailable(real_redis: Redis) -> None:
    """Out of memory is a thing to wait for; nothing is written half."""
    store = Store(real_redis, KEYS)
    await store.apply(CHANNEL, [added(1)], Origin.LIVE)
    await real_redis.config_set("maxmemory", "1")
    try:
        with pytest.raises(RedisUnavailableError, match="maxmemory"):
            await store.apply(CHANNEL, [removed(1), added(2)], Origin.LIVE)
    finally:
        await real_redis.config_set("maxmemory", "0")

    assert await entries_of(real_redis, {ANA}) == {ANA: Entry(live=at(1))}
