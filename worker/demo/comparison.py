"""The comparison of the counts in Redis with the truth of the emulator."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from reaction_tally import AsyncTallyReader
from reaction_tally.keys import Keys
from worker.domain.tally import Counts, TallyKey, by_count
from worker.emulator import Emulator
from worker.store.connection import RedisClient
from worker.store.redis_errors import redis_errors

PAUSE_SECONDS: Final = 0.1
RIGHT_SECONDS: Final = 1.0
"""How long right counts must stay right: events can be late."""
WRONG_SECONDS: Final = 6.0
"""How long wrong counts must stay the same: retries take time."""
LONGEST_SECONDS: Final = 15.0

Message = tuple[str, str]
"""Channel and message timetoken."""


Difference = tuple[str, str, str, str, int, int]
"""A key, the true count, and the count in Redis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The counts in Redis at one moment, and what is wrong with them.

    ``messages`` is the number of messages on either side.
    The emulator published ``events``, and holds ``actions``.
    """

    counts: Mapping[Message, Counts]
    differences: tuple[Difference, ...]
    messages: int
    events: int
    actions: int


async def compare(
    emulator: Emulator,
    redis: RedisClient,
    channels: Collection[str],
) -> Comparison:
    """Compare all counts in Redis with the truth once."""
    counts = await read_counts(redis, channels)
    truth = {
        (channel, message): message_counts
        for channel, messages in emulator.truth().items()
        for message, message_counts in messages.items()
    }
    return Comparison(
        counts=counts,
        differences=find_differences(_flat(truth), _flat(counts)),
        messages=len(truth.keys() | counts.keys()),
        events=emulator.state.published,
        actions=emulator.state.live(),
    )


async def read_counts(redis: RedisClient, channels: Collection[str]) -> dict[Message, Counts]:
    """Return the counts of all messages, as applications read them."""
    reader = AsyncTallyReader(redis)
    counts: dict[Message, Counts] = {}
    for channel in channels:
        key = Keys().messages(channel)
        with redis_errors():
            messages: Any = await redis.zrange(key, 0, -1)
        of_channel = await reader.get_many(channel, messages)
        for message in messages:
            counts[channel, message] = of_channel[message]
    return counts


def _flat(counts: Mapping[Message, Counts]) -> dict[TallyKey, int]:
    return {
        (channel, message, type, value): count
        for (channel, message), message_counts in counts.items()
        for type, value, count in by_count(message_counts)
    }


def find_differences(
    expected: Mapping[TallyKey, int],
    found: Mapping[TallyKey, int],
) -> tuple[Difference, ...]:
    """Return each count that is missing, superfluous or wrong, in order."""
    keys = {key for key, _ in expected.items() ^ found.items()}
    return tuple((*key, expected.get(key, 0), found.get(key, 0)) for key in sorted(keys))


async def settled(compare: Callable[[], Awaitable[Comparison]]) -> Comparison:
    """Repeat a comparison until its differences stay the same, 15 s at most."""
    start = time.monotonic()
    unchanged_since = start
    last = await compare()
    while time.monotonic() < start + LONGEST_SECONDS:
        needed = WRONG_SECONDS if last.differences else RIGHT_SECONDS
        if time.monotonic() > unchanged_since + needed:
            break
        await asyncio.sleep(PAUSE_SECONDS)
        comparison = await compare()
        if comparison.differences != last.differences:
            unchanged_since = time.monotonic()
        last = comparison
    return last
