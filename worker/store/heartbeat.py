"""How long ago a worker of a namespace gave its last sign of life."""

from typing import Any, Final, cast

from redis.asyncio import Redis

from reaction_tally.keys import Keys, heartbeat_age
from worker.domain.duration import span
from worker.store.redis_errors import redis_errors

IN_USE_SECONDS: Final = 30
"""A namespace is in use for so long after the last heartbeat of a worker."""
SILENT_SECONDS: Final = 45
"""No worker runs if the last heartbeat is so old.

A stop makes the last heartbeat IN_USE_SECONDS old.
Another worker renews it at most ten seconds later.
"""
NOT_COUNTED: Final = "Nothing is counted until one does."


async def read_heartbeat_age(redis: Redis, keys: Keys) -> float | None:
    """Return how many seconds ago a worker's last heartbeat was.

    None if there was none for a day.
    """
    client = cast("Any", redis)
    with redis_errors():
        left = await client.pttl(keys.subscriptions)
    return heartbeat_age(left)


async def is_in_use(redis: Redis, keys: Keys) -> bool:
    """Tell whether other settings may not be chosen: a worker may use the namespace."""
    age = await read_heartbeat_age(redis, keys)
    return age is not None and age < IN_USE_SECONDS


def runs(age: float | None) -> bool:
    """Tell whether a worker runs if the last heartbeat is so old."""
    return age is not None and age < SILENT_SECONDS


def no_worker(age: float | None) -> str:
    """Return that no worker runs, and since when; nothing if one does."""
    if runs(age):
        return ""
    if age is None:
        return f"No worker runs, or ran in the last day. {NOT_COUNTED}"
    return f"No worker runs: the last one gave a sign of life {span(age)} ago. {NOT_COUNTED}"
