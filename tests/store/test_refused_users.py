"""The hash of forgotten users, after another program changed it: nobody comes back in silence."""

from typing import Any

import pytest
from redis.asyncio import Redis

from tests.worlds import KEYS
from worker.errors import RedisUnfitError
from worker.store.preflight import check_keys
from worker.store.refused_users import RefusedUsers
from worker.store.tables import Tables

NAME = KEYS.forgotten


@pytest.fixture
async def refused(tables: Tables) -> RefusedUsers:
    """Return the table, with one forgotten user in it."""
    await tables.refused_users.add(["ana"])
    return tables.refused_users


@pytest.mark.parametrize("key", [None, "", "no hexadecimal digits", "abc"])
async def test_a_lost_key_is_an_error(refused: RefusedUsers, redis: Any, key: str | None) -> None:
    """Without it nobody is recognized. A new key would hide that."""
    if key is None:
        await redis.hdel(NAME, "key")
    else:
        await redis.hset(NAME, "key", key)
    before = await redis.hgetall(NAME)

    advice = f"its field key.*DEL {NAME}.*users forget"
    with pytest.raises(RedisUnfitError, match=advice):
        await refused.read()
    for call in (refused.add, refused.remove, refused.since):
        with pytest.raises(RedisUnfitError, match=advice):
            await call(["ben"])
    assert await redis.hgetall(NAME) == before


@pytest.mark.parametrize("field", ["no digits", "abc", "A" * 64, "", "\x1b[2J"])
async def test_a_field_of_another_program_is_named(
    refused: RefusedUsers, redis: Any, field: str
) -> None:
    """Escaped, with the command that deletes it. The others are forgotten still."""
    await redis.hset(NAME, field, "1")

    with pytest.raises(RedisUnfitError, match=f"which no worker writes.*HDEL {NAME}") as raised:
        await refused.read()
    assert "\x1b" not in str(raised.value)
    await redis.hdel(NAME, field)
    assert "ana" in await refused.read()


async def test_a_field_that_is_no_text_is_told(refused: RefusedUsers, redis: Any) -> None:
    """Its bytes cannot be shown, so a person has to look."""
    await redis.hset(NAME, b"\xff\xfe", "1")

    with pytest.raises(RedisUnfitError, match=f"no text.*HKEYS {NAME}"):
        await refused.read()


async def test_only_a_key_is_nobody(refused: RefusedUsers) -> None:
    """As an undo of the last user leaves it."""
    await refused.remove(["ana"])

    assert not await refused.read()
    await refused.add(["ben"])
    assert "ben" in await refused.read()


async def test_a_wrong_type_says_who_is_to_be_forgotten_again(redis: Redis) -> None:
    """A deleted hash is a hash of nobody."""
    await redis.set(NAME, "not ours")

    with pytest.raises(RedisUnfitError, match=f"DEL {NAME}. Stop the workers.*users forget"):
        await check_keys(redis, KEYS)
