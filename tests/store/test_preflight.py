"""A worker refuses a Redis on which counts could not stay exact."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from worker.errors import RedisUnfitError
from worker.store.keys import Keys
from worker.store.preflight import Claim, Fitness, check_fitness, check_namespace, check_ownership

KEYS = Keys()
CLAIM = Claim("sub-c-1", "all but deleted")
OURS = {"schema": "1", "subscribe_key": "sub-c-1", "types": "all but deleted"}


@pytest.fixture
async def evicting(real_redis: Redis) -> AsyncIterator[Redis]:
    """Let the real Redis evict keys when memory is short."""
    await real_redis.config_set("maxmemory-policy", "allkeys-lru")
    yield real_redis
    await real_redis.config_set("maxmemory-policy", "noeviction")


async def test_a_redis_that_evicts_is_refused(evicting: Redis) -> None:
    """``--allow-eviction`` accepts it."""
    with pytest.raises(RedisUnfitError, match=r"allkeys-lru.*--allow-eviction"):
        await check_fitness(evicting)
    accepted = await check_fitness(evicting, allow_eviction=True)
    assert accepted.policy == "allkeys-lru"


@pytest.mark.parametrize(
    ("version", "recent"), [("5.0.14", False), ("6.0.16", False), ("6.2.0", True), ("7.2.4", True)]
)
def test_redis_6_2_is_the_floor(version: str, recent: bool) -> None:
    """Older versions lack commands that the scripts need."""
    assert Fitness(version, "noeviction").is_recent is recent


async def test_a_namespace_is_claimed_once(redis: Redis) -> None:
    """The first worker writes its claim. The same claim is accepted again."""
    await check_namespace(redis, KEYS, CLAIM)
    await check_namespace(redis, KEYS, CLAIM)

    meta = await cast("Any", redis).hgetall(KEYS.meta)
    assert meta == OURS


@pytest.mark.parametrize(
    ("meta", "says"),
    [
        (OURS | {"schema": "2"}, "schema 2"),
        (OURS | {"subscribe_key": "sub-c-2"}, "PUBNUB_SUBSCRIBE_KEY"),
        (OURS | {"types": "all"}, "TALLY_TYPES"),
        ({"schema": "2"}, "schema 2"),
        ({"schema": "1"}, "another keyset"),
        ({"schema": "1", "subscribe_key": "sub-c-1"}, "counts unknown"),
        ({"subscribe_key": "sub-c-2"}, "another keyset"),
        ({"colour": "blue"}, "schema unknown"),
    ],
)
async def test_a_namespace_of_another_owner_is_refused(
    redis: Redis, meta: dict[str, str], says: str
) -> None:
    """The error says what differs, and what to do. No field is changed or added."""
    await cast("Any", redis).hset(KEYS.meta, mapping=meta)

    with pytest.raises(RedisUnfitError, match=says):
        await check_namespace(redis, KEYS, CLAIM)

    assert await cast("Any", redis).hgetall(KEYS.meta) == meta


async def test_two_claims_at_once_do_not_mix(redis: Redis) -> None:
    """One claim is written as a whole. The others are refused."""
    claims = [Claim(f"sub-c-{number}", f"only type-{number}") for number in range(8)]

    checks = [check_namespace(redis, KEYS, claim) for claim in claims]
    results = await asyncio.gather(*checks, return_exceptions=True)

    (owner,) = (claim for claim, error in zip(claims, results, strict=True) if error is None)
    assert sum(isinstance(error, RedisUnfitError) for error in results) == len(claims) - 1
    assert await cast("Any", redis).hgetall(KEYS.meta) == {
        "schema": "1",
        "subscribe_key": owner.subscribe_key,
        "types": owner.types,
    }


async def test_a_command_that_reads_claims_nothing(redis: Redis) -> None:
    """It only refuses another schema."""
    await check_ownership(redis, KEYS)
    assert not await redis.exists(KEYS.meta)

    await cast("Any", redis).hset(KEYS.meta, "schema", "9")
    with pytest.raises(RedisUnfitError, match="schema 9"):
        await check_ownership(redis, KEYS)
