"""The tallies in Redis held against the emulator's truth, in both directions."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

import aiohttp

from worker import TallyReader
from worker.demo.cancellation import heed_cancellation
from worker.domain.tally import Counts, TallyKey
from worker.errors import FatalError, RedisUnavailableError
from worker.store.connection import RedisClient
from worker.store.entries import Entries
from worker.store.keys import Keys

LOOK_SECONDS: Final = 0.1
QUIET_SECONDS: Final = 1.0
STILL_SECONDS: Final = 6.0
SETTLE_SECONDS: Final = 15.0

Message = tuple[str, str]
"""Channel and message timetoken."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One tally that is not what it should be."""

    channel: str
    message_timetoken: str
    type: str
    value: str
    expected: int
    found: int


@dataclass(frozen=True, slots=True)
class Truth:
    """What a perfect tally shows, how many events were published, how many actions are stored."""

    counts: Mapping[Message, Counts]
    events: int
    actions: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """One look at both sides."""

    truth: Truth
    found: Mapping[Message, Counts]
    differences: tuple[Difference, ...]


class Tallies:
    """What Redis shows: read as an application reads it, through TallyReader, and listed by the channels' indexes."""

    def __init__(self, reader: TallyReader, redis: RedisClient, channels: Collection[str]) -> None:
        self._reader = reader
        self._entries = Entries(redis, Keys())
        self._channels = channels

    async def read(self, also: Collection[Message] = ()) -> dict[Message, Counts]:
        """Return the counts of every message Redis knows, and of these as well.

        Raises:
            RedisUnavailableError: Redis does not answer.
        """
        read: dict[Message, Counts] = {}
        for channel in self._channels:
            asked = {message for name, message in also if name == channel}
            async for messages in self._entries.messages(channel):
                asked.update(messages)
                heed_cancellation()
            counts = await self._reader.get_many(channel, sorted(asked))
            heed_cancellation()
            read |= {(channel, message): counts[message] for message in asked}
        return read


class Judge:
    """Compares what Redis shows with what the emulator knows."""

    def __init__(self, origin: str, session: aiohttp.ClientSession, tallies: Tallies) -> None:
        self._url = f"http://{origin}/emulator/truth"
        self._session = session
        self._tallies = tallies

    async def compare(self) -> Comparison:
        """Look at both sides once: every message of the truth, and every message Redis knows.

        Raises:
            FatalError: the emulator does not answer.
            RedisUnavailableError: Redis does not answer.
        """
        truth = await self._truth()
        read = await self._tallies.read(truth.counts)
        return Comparison(truth, read, differences(flat(truth.counts), flat(read)))

    async def _truth(self) -> Truth:
        try:
            async with self._session.get(self._url) as answer:
                told = await answer.json()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise FatalError(
                f"The emulator does not tell the truth: {error or type(error).__name__}."
            ) from error
        counts = {
            (channel, message): types
            for channel, messages in told["channels"].items()
            for message, types in messages.items()
        }
        return Truth(counts, told["events"], told["actions"])


def flat(counts: Mapping[Message, Counts]) -> dict[TallyKey, int]:
    """Return one entry a tally."""
    return {
        (*message, type, value): count
        for message, types in counts.items()
        for type, values in types.items()
        for value, count in values.items()
    }


def differences(
    expected: Mapping[TallyKey, int], found: Mapping[TallyKey, int]
) -> tuple[Difference, ...]:
    """Return every tally that one side has and the other has not, or not so; in order."""
    return tuple(
        Difference(*tally, expected.get(tally, 0), found.get(tally, 0))
        for tally in sorted(expected.keys() | found.keys())
        if expected.get(tally, 0) != found.get(tally, 0)
    )


async def settled(
    compare: Callable[[], Awaitable[Comparison]], clock: Callable[[], float] = time.monotonic
) -> Comparison:
    """Look again and again until the difference has not changed for a while, or fifteen seconds; return the last look.

    Being right once is not enough: an event that comes late may still make it wrong. Being wrong takes longer to be
    believed, because a worker that was refused or dropped waits before it asks again.
    """
    deadline, same_since, before = clock() + SETTLE_SECONDS, clock(), None
    while True:
        try:
            last = await compare()
        except RedisUnavailableError:
            if clock() > deadline:
                raise
            last = None
        now = clock()
        if last is None or last.differences != before:
            same_since, before = now, last and last.differences
        enough = STILL_SECONDS if before else QUIET_SECONDS
        if last and (now > deadline or now - same_since >= enough):
            return last
        await asyncio.sleep(LOOK_SECONDS)
