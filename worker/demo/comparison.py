"""The comparison of the counts in Redis with the truth of the emulator."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from worker.domain.tally import Counts, TallyKey
from worker.emulator import Emulator
from worker.store.connection import RedisClient
from worker.store.keys import Keys
from worker.store.reader import TallyReader
from worker.store.redis_errors import redis_errors

PAUSE_SECONDS: Final = 0.1
RIGHT_SECONDS: Final = 1.0
"""How long right counts must stay right. A late event may change them."""
WRONG_SECONDS: Final = 6.0
"""How long wrong counts must stay the same. A worker waits before it retries."""
LONGEST_SECONDS: Final = 15.0

Channels = Collection[str]
Message = tuple[str, str]
"""Channel and message timetoken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One wrong count."""

    channel: str
    message_timetoken: str
    type: str
    value: str
    expected: int
    found: int

    def __str__(self) -> str:
        place = f"{self.channel} {self.message_timetoken} {self.type} {self.value}"
        return f"{place}: expected {self.expected}, found {self.found}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The counts in Redis at one moment, and what is wrong with them.

    ``messages`` is the number of messages on either side.
    ``events`` and ``actions`` are numbers of the emulator:
    the events it published, and the actions it holds.
    """

    counts: Mapping[Message, Counts]
    differences: tuple[Difference, ...]
    messages: int
    events: int
    actions: int


async def compare(emulator: Emulator, redis: RedisClient, channels: Channels) -> Comparison:
    """Compare all counts in Redis with the truth once.

    Raises:
        RedisUnavailableError: Redis does not answer.
    """
    counts = await read_counts(redis, channels)
    truth = read_truth(emulator)
    return Comparison(
        counts=counts,
        differences=find_differences(dict(flat(truth)), dict(flat(counts))),
        messages=len(truth.keys() | counts.keys()),
        events=emulator.state.published,
        actions=emulator.state.live(),
    )


async def read_counts(redis: RedisClient, channels: Channels) -> dict[Message, Counts]:
    """Return the counts of all messages in Redis.

    They are read as applications read them.

    Raises:
        RedisUnavailableError: Redis does not answer.
    """
    reader = TallyReader(redis)
    counts: dict[Message, Counts] = {}
    for channel in channels:
        key = Keys().messages(channel)
        with redis_errors():
            messages: Any = await redis.zrange(key, 0, -1)
        of_channel = await reader.get_many(channel, messages)
        for message in messages:
            counts[channel, message] = of_channel[message]
    return counts


def read_truth(emulator: Emulator) -> dict[Message, Counts]:
    """Return the counts that a perfect tally shows."""
    return {
        (channel, message): counts
        for channel, messages in emulator.truth().items()
        for message, counts in messages.items()
    }


def flat(counts: Mapping[Message, Counts]) -> Iterator[tuple[TallyKey, int]]:
    """Yield each count with its channel, message, type and value."""
    for (channel, message), types in counts.items():
        for type, values in types.items():
            for value, count in values.items():
                yield (channel, message, type, value), count


def find_differences(
    expected: Mapping[TallyKey, int], found: Mapping[TallyKey, int]
) -> tuple[Difference, ...]:
    """Return each count that is missing, superfluous or wrong, in order."""
    keys = {key for key, _ in expected.items() ^ found.items()}
    return tuple(
        Difference(
            channel=channel,
            message_timetoken=message,
            type=type,
            value=value,
            expected=expected.get((channel, message, type, value), 0),
            found=found.get((channel, message, type, value), 0),
        )
        for channel, message, type, value in sorted(keys)
    )


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
