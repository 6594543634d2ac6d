"""The audit finds every inconsistency, and none in what the script wrote."""

import asyncio
from itertools import count
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from reaction_tally.keys import Keys
from tests.bench.round_trips import round_trips
from tests.histories import BEN, CHANNEL, MESSAGE, added, events, removed
from tests.store.examples import ON_A_REAL_SERVER, apply
from worker.domain.action import Event, Identity
from worker.store.audit import Audit, Inconsistency
from worker.store.store import Store

KEYS = Keys()
COUNTS, ACTIONS = KEYS.counts(CHANNEL, MESSAGE), KEYS.actions(CHANNEL, MESSAGE)
FIELD = "reaction:👍"


async def inconsistencies(redis: Redis, *channels: str) -> list[Inconsistency]:
    """Return what an audit finds in the channels; in one channel if none is named."""
    return await Audit(redis, KEYS).channels(channels or [CHANNEL])


@ON_A_REAL_SERVER
@given(st.lists(st.lists(events, min_size=1, max_size=12), max_size=6))
async def test_what_the_script_wrote_is_consistent(
    real_redis: Redis, batches: list[list[Event]]
) -> None:
    """Histories have observed and inferred events."""
    await real_redis.flushall()
    for batch in batches:
        await apply(Store(real_redis, KEYS), batch)

        assert await inconsistencies(real_redis) == []


@pytest.mark.parametrize(
    ("command", "field", "problem"),
    [
        (("HINCRBY", COUNTS, FIELD, "1"), FIELD, "the count is 3, though 2 are live"),
        (("HSET", COUNTS, FIELD, "many"), FIELD, "the count is many, though 2 are live"),
        (("HDEL", ACTIONS, f"{FIELD}:ana"), FIELD, "the count is 2, though 1 are live"),
        (("HDEL", COUNTS, FIELD), FIELD, "no count, though 2 are live"),
        (("DEL", ACTIONS), FIELD, "the count is 2, though 0 are live"),
        (("HSET", COUNTS, "reaction:🎉", "0"), "reaction:🎉", "a count of zero"),
        (("HSET", ACTIONS, "reaction", "5"), "reaction", "a field of actions that cannot be read"),
        (("ZREM", KEYS.messages(CHANNEL), MESSAGE), "", "not in the index of messages"),
    ],
    ids=lambda value: "-".join(value[:1]) if isinstance(value, tuple) else None,
)
async def test_an_inconsistency_is_found(
    redis: Redis, command: tuple[str, ...], field: str, problem: str
) -> None:
    """Nothing else is found with it."""
    await apply(Store(redis, KEYS), [added(1), added(1, BEN)])
    assert await inconsistencies(redis) == []

    await cast("Any", redis).execute_command(*command)

    assert await inconsistencies(redis) == [Inconsistency(CHANNEL, MESSAGE, field, problem)]


async def test_inconsistencies_are_found_among_hundreds_of_messages(real_redis: Redis) -> None:
    """They are sorted; each is there once. Other channels are left out."""
    odd = "a{b}:c%"
    for channel in (CHANNEL, odd, "hall"):
        lives = [
            added(1, Identity(channel, str(10**16 + n), "reaction", "👍", "ana"))
            for n in range(200)
        ]
        await apply(Store(real_redis, KEYS), lives, channel=channel)
        for n in (199, 3):
            await cast("Any", real_redis).hdel(KEYS.counts(channel, str(10**16 + n)), FIELD)

    found = await inconsistencies(real_redis, odd, CHANNEL, "yard")

    assert [(item.channel, item.message_timetoken) for item in found] == [
        (channel, str(10**16 + n)) for channel in (odd, CHANNEL) for n in (3, 199)
    ]


async def test_a_batch_under_way_is_no_inconsistency(real_redis: Redis) -> None:
    """Counts and actions of a message are read in one transaction."""
    store, messages = Store(real_redis, KEYS), [str(10**16 + n) for n in range(5)]
    is_over = asyncio.Event()

    async def write(uuid: str) -> None:
        for place in count():
            if is_over.is_set():
                return
            batch = [
                event
                for message in messages
                for event in (
                    removed(place, Identity(CHANNEL, message, "reaction", "👍", uuid)),
                    added(place + 1, Identity(CHANNEL, message, "reaction", "👍", uuid)),
                )
            ]
            await apply(store, batch[place % 2 :])

    async def head() -> object:
        return await cast("Any", real_redis).get(KEYS.head(CHANNEL))

    async with asyncio.TaskGroup() as writing:
        for number in range(6):
            writing.create_task(write(f"user{number}"))
        seen: set[object] = {None}
        while len(seen) < 12:
            if (now := await head()) not in seen:
                seen.add(now)
                assert await inconsistencies(real_redis) == []
        is_over.set()


async def test_messages_of_many_channels_share_transactions(real_redis: Redis) -> None:
    """Most channels have few messages. Each flaw is found under its own channel."""
    store = Store(real_redis, KEYS)
    rooms = [f"room{number}" for number in range(100)]
    for room in rooms:
        identity = Identity(room, MESSAGE, "reaction", "👍", "ana")
        await apply(store, [added(1, identity)], channel=room)
    await cast("Any", real_redis).hset(KEYS.counts("room7", MESSAGE), FIELD, 5)

    with round_trips(real_redis) as sent:
        found = await inconsistencies(real_redis, *rooms)

    assert [item.channel for item in found] == ["room7"]
    assert len(sent) < 30
