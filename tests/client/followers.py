"""Programs that follow changes, and what their tests share."""

from collections.abc import Callable
from contextlib import aclosing
from typing import Any, Final

from reaction_tally.keys import Keys
from tests.histories import CHANNEL, MESSAGE, added
from tests.waiting import wait_until
from worker.domain.action import Added, Identity

KEYS: Final = Keys()
Until = int | Callable[[Any], bool]
"""How many changes, or which one is the last."""


async def collect(reader: Any, until: Until, *args: Any, **options: Any) -> list[Any]:
    """Return so many changes, or all until one that is meant; close the iterator."""
    items: list[Any] = []
    async with aclosing(reader.changes(*args, **options)) as changes:
        async for item in changes:
            items.append(item)
            if _is_last(items, until):
                break
    return items


def _is_last(items: list[Any], until: Until) -> bool:
    return len(items) == until if isinstance(until, int) else bool(items) and until(items[-1])


async def positions(reader: Any, *channels: str) -> dict[str, str]:
    """Return where channels are now."""
    return {channel: (await reader.page(channel, [])).position for channel in channels}


def reaction(number: int, value: str = "👍", channel: str = CHANNEL) -> Added:
    """Return the first reaction of a user."""
    return added(1, Identity(channel, MESSAGE, "reaction", value, f"user-{number}"))


async def count_followers(redis: Any) -> int:
    """Return how many connections are subscribed to hints."""
    ((_, count),) = await redis.pubsub_numsub(KEYS.hints)
    return int(count)


async def subscribed(redis: Any, count: int = 1) -> None:
    """Wait until so many follow."""

    async def are_subscribed() -> bool:
        return await count_followers(redis) == count

    await wait_until(are_subscribed)
