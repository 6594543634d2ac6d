"""The quarantine: what could not be applied."""

from typing import Any, cast

from redis.asyncio import Redis

from worker.store.keys import Keys
from worker.store.tables import Tables


async def test_the_quarantine_keeps_any_text(tables: Tables, redis: Redis) -> None:
    """Lone surrogates become escapes. A long payload is cut."""
    await tables.dead_letters.add("room", "a reason", '"\ud83d"' + "x" * 10_000)

    [(_, entry)] = await cast("Any", redis).xrange(Keys().quarantine)
    assert entry["channel"] == "room"
    assert entry["reason"] == "a reason"
    assert entry["payload"].startswith('"\\ud83d"x')
    assert len(entry["payload"]) == 4096
