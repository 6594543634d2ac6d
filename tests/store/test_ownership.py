"""A namespace has one owner, and its processes share some settings."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from reaction_tally.keys import Keys
from worker.errors import RedisUnfitError
from worker.service.worker import HEARTBEAT_SECONDS
from worker.store.counted_types import replaceable_types
from worker.store.heartbeat import IN_USE_SECONDS, no_worker
from worker.store.ownership import Claim, Ownership, check_ownership
from worker.store.tables import Tables

KEYS = Keys()
CLAIM = Claim(
    subscribe_key="sub-c-1",
    types="all but deleted",
    retention_days="90",
    tombstone_seconds="3600",
    settle_seconds="60",
)
OURS = {
    "schema": "1",
    "subscribe_key": "sub-c-1",
    "types": "all but deleted",
    "retention_days": "90",
    "tombstone_seconds": "3600",
    "settle_seconds": "60",
}


async def claim(redis: Redis, wanted: Claim = CLAIM) -> bool:
    """Claim the namespace as a new process does."""
    return await Ownership(redis, KEYS, wanted).claim()


async def meta(redis: Redis) -> Mapping[str, str]:
    """Return what tells the owner; its random name is left out."""
    held = await cast("Any", redis).hgetall(KEYS.meta)
    return {field: value for field, value in held.items() if field != "life"}


async def beat(redis: Redis) -> None:
    """Do what a running worker does every ten seconds."""
    await Tables(redis, KEYS).cursors.register("subscription", ["room"])


async def test_a_namespace_is_claimed_once(redis: Redis) -> None:
    """The first worker writes its claim. The same claim is accepted again."""
    await claim(redis)
    await claim(redis)

    assert await meta(redis) == OURS


@pytest.mark.parametrize(
    ("held", "says"),
    [
        (OURS | {"schema": "2"}, "schema 2"),
        (OURS | {"subscribe_key": "sub-c-2"}, "PUBNUB_SUBSCRIBE_KEY"),
        (OURS | {"types": "all"}, "TALLY_TYPES"),
        ({"schema": "2"}, "schema 2"),
        ({"schema": "1"}, "another keyset"),
        ({"schema": "1", "subscribe_key": "sub-c-1"}, "counts unknown"),
        ({"subscribe_key": "sub-c-2"}, "another keyset"),
        ({"colour": "blue"}, "tally:meta has no field schema"),
    ],
)
async def test_a_namespace_of_another_owner_is_refused(
    redis: Redis, held: dict[str, str], says: str
) -> None:
    """The error says what differs, and what to do. No field is changed or added."""
    await cast("Any", redis).hset(KEYS.meta, mapping=held)

    with pytest.raises(RedisUnfitError, match=says):
        await claim(redis)

    assert await cast("Any", redis).hgetall(KEYS.meta) == held


async def test_two_claims_at_once_do_not_mix(redis: Redis) -> None:
    """One claim is written as a whole. The others are refused."""
    claims = [
        replace(CLAIM, subscribe_key=f"sub-c-{number}", types=f"only type-{number}")
        for number in range(8)
    ]

    results = await asyncio.gather(
        *(claim(redis, wanted) for wanted in claims), return_exceptions=True
    )

    (owner,) = (wanted for wanted, result in zip(claims, results, strict=True) if result is True)
    assert sum(isinstance(error, RedisUnfitError) for error in results) == len(claims) - 1
    assert await meta(redis) == OURS | {
        "subscribe_key": owner.subscribe_key,
        "types": owner.types,
    }


async def test_types_that_bind_nothing_are_replaced_once(redis: Redis) -> None:
    """Several workers with other types have looked. One replaces these; the others are refused."""
    await claim(redis)
    others = [replace(CLAIM, types=f"only type-{number}") for number in range(8)]
    for wanted in others:
        assert await replaceable_types(redis, KEYS, wanted) == CLAIM.types

    results = await asyncio.gather(
        *(Ownership(redis, KEYS, wanted).claim(replaces=CLAIM.types) for wanted in others),
        return_exceptions=True,
    )

    (owner,) = (wanted for wanted, result in zip(others, results, strict=True) if result is True)
    assert sum(isinstance(error, RedisUnfitError) for error in results) == len(others) - 1
    assert await meta(redis) == OURS | {"types": owner.types}


async def test_types_in_use_are_not_replaced(redis: Redis) -> None:
    """A worker began to use the namespace after the other one had looked."""
    await claim(redis)
    await beat(redis)
    other = Ownership(redis, KEYS, replace(CLAIM, types="all"))

    with pytest.raises(RedisUnfitError, match="counts all but deleted"):
        await other.claim(replaces=CLAIM.types)

    assert await meta(redis) == OURS


async def test_a_command_that_reads_claims_nothing(redis: Redis) -> None:
    """It only refuses another schema."""
    await check_ownership(redis, KEYS)
    assert not await redis.exists(KEYS.meta)

    await cast("Any", redis).hset(KEYS.meta, "schema", "9")
    with pytest.raises(RedisUnfitError, match="schema 9"):
        await check_ownership(redis, KEYS)


SHARED = pytest.mark.parametrize(
    ("field", "setting"),
    [
        ("retention_days", "TALLY_RETENTION_DAYS"),
        ("tombstone_seconds", "TALLY_TOMBSTONE_SECONDS"),
        ("settle_seconds", "TALLY_SETTLE_SECONDS"),
    ],
)


@SHARED
async def test_a_setting_that_differs_is_refused(redis: Redis, field: str, setting: str) -> None:
    """While a worker runs. The error names the setting, both values, and what to do."""
    await claim(redis)
    await beat(redis)
    other = replace(CLAIM, **{field: "7"})
    unit = "days" if field == "retention_days" else "s"
    held = f"{setting} is {OURS[field]} {unit} in the workers"
    sentence = f"{held}.*; here it is 7 {unit}.*stop all of them"

    with pytest.raises(RedisUnfitError, match=sentence):
        await claim(redis, other)
    with pytest.raises(RedisUnfitError, match=sentence):
        await check_ownership(redis, KEYS, other)

    assert await meta(redis) == OURS
    await claim(redis)


@SHARED
async def test_a_setting_may_change_while_nobody_runs(
    redis: Redis, field: str, setting: str
) -> None:
    """After an orderly stop at once, else half a minute after the last heartbeat."""
    await claim(redis)
    await beat(redis)
    await Tables(redis, KEYS).cursors.end_heartbeats()
    other = replace(CLAIM, **{field: "7"})
    assert await check_ownership(redis, KEYS, other)

    await claim(redis, other)
    assert (await meta(redis))[field] == "7"

    await beat(redis)
    with pytest.raises(RedisUnfitError, match=setting):
        await claim(redis)
    await cast("Any", redis).expire(KEYS.subscriptions, 86_400 - IN_USE_SECONDS - 1)
    await claim(redis)
    assert await meta(redis) == OURS


async def test_a_stop_beside_another_worker_is_no_silence(redis: Redis, tables: Tables) -> None:
    """Readers know of a worker until its next heartbeat, at most ten seconds later."""
    await beat(redis)
    await tables.cursors.end_heartbeats()
    age = cast("float", await tables.cursors.heartbeat_age())

    assert no_worker(age + HEARTBEAT_SECONDS) == ""
    assert no_worker(age + 2 * HEARTBEAT_SECONDS) != ""


async def test_an_older_version_left_fields_out(redis: Redis) -> None:
    """They are filled in, also while its worker runs."""
    older = {name: OURS[name] for name in ("schema", "subscribe_key", "types")}
    await cast("Any", redis).hset(KEYS.meta, mapping=older)
    await beat(redis)
    assert await check_ownership(redis, KEYS, CLAIM)

    await claim(redis)

    assert await meta(redis) == OURS


async def test_a_claim_that_is_gone_is_noticed(redis: Redis) -> None:
    """After a FLUSHALL; by each process, also if another one claimed it first."""
    one, two = Ownership(redis, KEYS, CLAIM), Ownership(redis, KEYS, CLAIM)
    assert await one.claim()
    assert await two.claim()
    assert await one.is_held()

    await redis.flushall()
    assert not await one.is_held()
    assert not await two.claim()

    assert not await one.is_held()
    assert not await one.claim()
    assert await one.is_held()
    assert await two.is_held()


async def test_a_known_loss_is_told_to_the_others(redis: Redis) -> None:
    """Each process notices it once."""
    one, two = Ownership(redis, KEYS, CLAIM), Ownership(redis, KEYS, CLAIM)
    await one.claim()
    await two.claim()

    assert not await one.claim(has_lost=True)
    assert not await two.is_held()
    assert not await two.claim(has_lost=True)

    assert await one.is_held()
    assert await two.is_held()


async def test_a_running_process_notices_another_claim(redis: Redis) -> None:
    """It was suspended while others took the namespace over."""
    one = Ownership(redis, KEYS, CLAIM)
    await one.claim()
    await claim(redis, replace(CLAIM, settle_seconds="7"))

    with pytest.raises(RedisUnfitError, match="TALLY_SETTLE_SECONDS is 7"):
        await one.is_held()
