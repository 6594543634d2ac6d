"""A rebuild makes counts what the actions say, and journals it."""

from typing import Any, Final, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from reaction_tally.keys import Keys
from tests.histories import BEN, CHANNEL, MESSAGE, added, at, events, removed
from tests.store.examples import ON_A_REAL_SERVER, apply
from tests.store.journal_follower import JournalFollower
from worker.domain.action import Event, Identity
from worker.errors import ScriptRefusedError
from worker.store import store as store_module
from worker.store.audit import Audit
from worker.store.store import Store

KEYS: Final = Keys()
COUNTS: Final = KEYS.counts(CHANNEL, MESSAGE)
ACTIONS: Final = KEYS.actions(CHANNEL, MESSAGE)
INDEX: Final = KEYS.messages(CHANNEL)
FIELD: Final = "reaction:👍"
MESSAGES: Final = (MESSAGE, "1234567890")

Command = tuple[str, ...]


async def do(redis: Redis, *command: str) -> Any:
    """Send a command, as a hand does."""
    return await cast("Any", redis).execute_command(*command)


async def rebuild(redis: Redis, message: str = MESSAGE) -> bool:
    """Rebuild a message if it needs that; return whether anything differed."""
    return await Store(redis, KEYS).rebuild(CHANNEL, [message]) > 0


async def follower_of(redis: Redis) -> JournalFollower:
    """Return a follower that holds the present counts."""
    follower = JournalFollower(redis, CHANNEL)
    await follower.catch_up()
    return follower


async def last_entry(redis: Redis) -> dict[str, str]:
    """Return the newest entry of the journal."""
    ((_, entry),) = await cast("Any", redis).xrevrange(KEYS.journal(CHANNEL), count=1)
    return dict(entry)


@pytest.mark.parametrize(
    ("command", "count"),
    [
        (("HSET", COUNTS, FIELD, "9"), 2),
        (("HSET", COUNTS, FIELD, "many"), 2),
        (("HDEL", COUNTS, FIELD), 2),
        (("DEL", COUNTS), 2),
        (("HDEL", ACTIONS, f"{FIELD}:ana"), 1),
        (("DEL", ACTIONS), 0),
    ],
)
async def test_a_count_becomes_what_the_actions_say(
    redis: Redis, command: Command, count: int
) -> None:
    """A follower of the journal ends with the right count, without a new snapshot."""
    store = Store(redis, KEYS)
    await apply(store, [added(1), added(2, BEN)])
    follower = await follower_of(redis)
    head = follower.position
    await do(redis, *command)

    assert await rebuild(redis)

    assert await last_entry(redis) == {
        "after": head,
        "origin": "reconcile",
        "0": f"rebuilt applied {MESSAGE} {count} {MESSAGE} {FIELD}:",
    }
    assert await do(redis, "HGET", COUNTS, FIELD) == (str(count) if count else None)
    await follower.catch_up()
    assert follower.snapshots == 1
    assert follower.tallies[MESSAGE] == ({FIELD: count} if count else {})
    assert await Audit(redis, KEYS).channels([CHANNEL]) == []
    assert not await rebuild(redis)


async def test_a_lost_message_is_indexed_again(redis: Redis) -> None:
    """It gets the time of its newest action. Counts are right, so the journal gets nothing."""
    store = Store(redis, KEYS)
    await apply(store, [added(1), added(4, BEN)])
    head = await do(redis, "GET", KEYS.head(CHANNEL))
    await do(redis, "DEL", INDEX)

    assert await rebuild(redis)

    assert await redis.zscore(INDEX, MESSAGE) == int(at(4)) // 10_000
    assert await do(redis, "GET", KEYS.head(CHANNEL)) == head
    assert not await rebuild(redis)


@pytest.mark.parametrize("events", [[], [added(1), removed(1)]])
async def test_a_message_without_actions_is_not_indexed(redis: Redis, events: list[Event]) -> None:
    """PubNub may list messages that are older than the retention."""
    store = Store(redis, KEYS)
    if events:
        await apply(store, events)
    await do(redis, "DEL", INDEX)

    assert not await rebuild(redis)

    assert not await redis.exists(INDEX)


async def test_a_field_of_nobody_is_deleted(redis: Redis) -> None:
    """It is no action, so no count changes."""
    store = Store(redis, KEYS)
    await apply(store, [added(1)])
    await do(redis, "HSET", ACTIONS, "reaction", "5", FIELD, "6", "", "7")
    await do(redis, "HSET", ACTIONS, "r%41ction:👍:ana", "8")

    assert await rebuild(redis)

    assert await do(redis, "HGETALL", ACTIONS) == {f"{FIELD}:ana": at(1)}
    assert await do(redis, "HGETALL", COUNTS) == {FIELD: "1"}


async def test_odd_texts_survive(redis: Redis) -> None:
    """Types and values are encoded in one hash, and raw in the other."""
    odd = Identity(CHANNEL, MESSAGE, "re:a%ct", "a:b%3A{c}\n", "u: 1")
    store = Store(redis, KEYS)
    await apply(store, [added(1, odd), added(1)])
    right = await do(redis, "HGETALL", COUNTS)
    follower = await follower_of(redis)
    await do(redis, "DEL", COUNTS)

    assert await rebuild(redis)

    assert await do(redis, "HGETALL", COUNTS) == right
    await follower.catch_up()
    assert follower.tallies == {MESSAGE: {tally: int(count) for tally, count in right.items()}}


async def test_many_tallies_take_several_calls(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No call writes more than a batch; each journals what it wrote."""
    store = Store(redis, KEYS)
    await apply(
        store,
        [added(1, Identity(CHANNEL, MESSAGE, "r", str(number), "ana")) for number in range(25)],
    )
    follower = await follower_of(redis)
    right = await do(redis, "HGETALL", COUNTS)
    await do(redis, "DEL", COUNTS)
    monkeypatch.setattr(store_module, "MAX_BATCH", 10)

    assert await rebuild(redis)

    assert await do(redis, "HGETALL", COUNTS) == right
    assert await do(redis, "XLEN", KEYS.journal(CHANNEL)) == 1 + 3
    await follower.catch_up()
    assert follower.tallies == {MESSAGE: {tally: int(count) for tally, count in right.items()}}


async def test_a_lost_count_never_becomes_negative(redis: Redis) -> None:
    """A follower would keep -1: nothing differs in Redis afterwards."""
    store = Store(redis, KEYS)
    await apply(store, [added(1)])
    follower = await follower_of(redis)
    await do(redis, "DEL", COUNTS)

    await apply(store, [removed(1)])

    await follower.catch_up()
    assert follower.tallies[MESSAGE] == {}
    assert not await rebuild(redis)


async def test_a_key_of_the_wrong_type_changes_nothing(redis: Redis) -> None:
    """Everything is read before the first write."""
    store = Store(redis, KEYS)
    await apply(store, [added(1)])
    await do(redis, "HSET", COUNTS, FIELD, "9")
    await do(redis, "DEL", KEYS.journal(CHANNEL))
    await do(redis, "SET", KEYS.journal(CHANNEL), "odd", "EX", "60")

    with pytest.raises(ScriptRefusedError):
        await rebuild(redis)

    assert await do(redis, "HGET", COUNTS, FIELD) == "9"


@ON_A_REAL_SERVER
@given(
    st.lists(st.lists(events, min_size=1, max_size=12), min_size=1, max_size=6),
    st.one_of(
        st.lists(st.sampled_from(["counts", "index"]), max_size=5),
        st.lists(st.sampled_from(["changed", "index"]), max_size=5),
        st.lists(st.sampled_from(["actions", "field", "index"]), max_size=5),
    ),
    st.randoms(use_true_random=False),
)
async def test_any_loss_is_mended(
    real_redis: Redis, batches: list[list[Event]], losses: list[str], random: Any
) -> None:
    """Between any events something may be lost. A follower of the journal ends exact.

    Where both counts and actions are lost, nothing tells that they were there.
    """
    await real_redis.flushall()
    store, follower = Store(real_redis, KEYS), JournalFollower(real_redis, CHANNEL)
    audit = Audit(real_redis, KEYS)
    await follower.catch_up()
    for batch in batches:
        await apply(store, batch)
        for loss in losses:
            await lose(real_redis, loss, random.choice(MESSAGES))
        await follower.catch_up()
    differing = {item.message_timetoken for item in await audit.channels([CHANNEL])}

    assert {message for message in MESSAGES if await rebuild(real_redis, message)} == differing

    assert await audit.channels([CHANNEL]) == []
    await follower.catch_up()
    for message in MESSAGES:
        counts = await cast("Any", real_redis).hgetall(KEYS.counts(CHANNEL, message))
        held = {tally: str(count) for tally, count in follower.tallies.get(message, {}).items()}
        assert held == counts


async def lose(redis: Redis, loss: str, message: str) -> None:
    """Lose something of a message, as an eviction or a hand does."""
    commands, counts, actions = cast("Any", redis), *KEYS.message(CHANNEL, message)[:2]
    match loss:
        case "counts":
            await commands.delete(counts)
        case "actions":
            await commands.delete(actions)
        case "field":
            for field in (await commands.hkeys(actions))[:1]:
                await commands.hdel(actions, field)
        case "changed":
            for field in (await commands.hkeys(counts))[:1]:
                await commands.hincrby(counts, field, 3)
        case _:
            await commands.delete(INDEX)
