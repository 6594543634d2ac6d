"""A journal proves that nothing of it was lost, or shows that something was."""

from typing import Any, Final, cast

import pytest
from redis.asyncio import Redis

from reaction_tally.keys import Keys
from worker.store.tables import Tables

KEYS: Final = Keys()


async def write(redis: Redis, *entries: tuple[str, str]) -> None:
    """Write a journal of these ids, each with the id that its entry names as the one before."""
    raw = cast("Any", redis)
    for entry_id, after in entries:
        await raw.xadd(KEYS.journal("room"), {"after": after}, entry_id)
        await raw.expire(KEYS.journal("room"), 60)
        await raw.set(KEYS.head("room"), entry_id)


@pytest.mark.parametrize("known", ["5-1", "7-0"])
@pytest.mark.parametrize("trimmed", range(4))
async def test_an_entry_is_proven_by_those_after_it(redis: Redis, known: str, trimmed: int) -> None:
    """Others went on, and the entry is trimmed; in the end the whole journal expired."""
    await write(redis, ("5-1", "0-0"), ("7-0", "5-1"), ("9-0", "7-0"))
    await cast("Any", redis).xtrim(KEYS.journal("room"), maxlen=3 - trimmed, approximate=False)

    assert not await Tables(redis, KEYS).heads.lost({"room": known}.items())


async def test_a_newer_head_is_no_proof(redis: Redis) -> None:
    """Another process wrote it after the loss: it does not follow our entry."""
    await write(redis, ("5-1", "0-0"), ("9-0", "5-1"))

    heads = Tables(redis, KEYS).heads
    assert await heads.lost({"room": "7-0"}.items()) == {"room"}
    assert await heads.lost({"room": "9-1"}.items()) == {"room"}
    assert await heads.lost({"room": "9-0", "nowhere": "1-0"}.items()) == {"nowhere"}


@pytest.mark.parametrize(
    "damage",
    [
        ("SET", KEYS.journal("room"), "not ours"),
        ("SET", KEYS.head("room"), "not ours"),
        ("XADD", KEYS.journal("room"), "9-0", "not", "ours"),
    ],
)
async def test_what_another_program_wrote_is_no_proof(
    redis: Redis, damage: tuple[str, ...]
) -> None:
    """It is a loss of its channel, and no error of all."""
    raw = cast("Any", redis)
    await raw.execute_command(*damage)

    assert await Tables(redis, KEYS).heads.lost({"room": "7-0"}.items()) == {"room"}
    await raw.delete(damage[1])
