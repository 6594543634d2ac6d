"""The changes of channels: first what their journals hold since a time, then as they happen."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import repeat
from typing import Final

from reaction_tally import Change, Reset
from reaction_tally.journal import START, stream_order
from worker.errors import (
    MalformedError,
    RedisUnavailableError,
    RedisUnfitError,
    ScriptRefusedError,
    TallyError,
)
from worker.reading.past import TimedChange, read_past
from worker.source import names
from worker.store.heads import Heads
from worker.store.journal import Journal, JournalStart
from worker.store.reader import Tallies, opened_tallies, reading_errors

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 5.0
"""The pauses between tries to reach Redis. Each is twice as long as the one before."""


@dataclass(frozen=True, slots=True)
class Notice:
    """A sentence about the channels or Redis."""

    text: str


Event = TimedChange | Reset | Notice


@dataclass(frozen=True, slots=True)
class TailQuery:
    """Which changes are wanted."""

    names: tuple[str, ...] = ()
    """Channels, and wildcards such as ``news.*``. Empty: every channel."""
    last: str | None = None
    """The id of the last entry that is not wanted; None: only new ones are."""
    is_followed: bool = True
    """Whether to wait for new changes when all older ones are read."""


async def read_tail(
    redis_url: str | None,
    namespace: str,
    query: TailQuery,
) -> AsyncGenerator[Event]:
    """Yield changes, until nobody asks any more.

    Those of the past come channel by channel.

    Raises:
        ConfigurationError: PubNub would refuse a name.
        RedisUnavailableError: Redis does not answer at first. Later it is waited for.
        RedisUnfitError: there are no tallies, or they have another schema.
    """
    wanted = names.Names.of(query.names)
    async with opened_tallies(redis_url, namespace) as tallies:
        tail = Tail(tallies, wanted)
        steps = [tail.begin()]
        if query.last is not None:
            steps.append(tail.past(query.last))
        if query.is_followed:
            steps.append(tail.follow())
        for step in steps:
            async with aclosing(step) as events:
                async for event in events:
                    yield event


class Tail:
    """The channels that are followed, and the position of each."""

    def __init__(self, tallies: Tallies, wanted: names.Names) -> None:
        """Without a name every channel is followed, new ones, too."""
        self._tallies = tallies
        self._wanted = wanted
        self._positions: dict[str, str] = {}
        self._together: dict[str, list[Change]] = {}
        """Changes of a channel that have no position of their own yet."""

    async def begin(self) -> AsyncGenerator[Event]:
        """Find out where the channels are now."""
        for channel in self._wanted.channels:
            if not await self._tallies.is_known(channel):
                yield Notice(f"{channel}: no worker has counted this channel yet.")
        channels = set(self._wanted.channels)
        if self._is_open:
            with reading_errors():
                channels |= await self._tallies.reader.channels()
        heads = Heads(self._tallies.redis, self._tallies.keys)
        self._positions = await heads.read(channels)

    @property
    def _is_open(self) -> bool:
        """Whether every channel is followed, because new ones may be wanted."""
        return bool(self._wanted.wildcards) or not self._wanted.channels

    def _is_wanted(self, channel: str) -> bool:
        """Tell whether the changes of a channel that is followed are wanted."""
        is_every_channel = not self._wanted
        if is_every_channel:
            return True
        prefixes = [wildcard.removesuffix("*") for wildcard in self._wanted.wildcards]
        is_named = channel in self._wanted.channels
        return is_named or channel.startswith(tuple(prefixes))

    async def past(self, last: str) -> AsyncGenerator[Event]:
        """Yield what the journals hold after an entry."""
        journal = Journal(self._tallies.redis, self._tallies.keys)
        channels = list(filter(self._is_wanted, self._positions))
        async for start in journal.starts(channels, last):
            if start.is_cut:
                yield _cut_notice(start)
            events = self._past_of(journal, start)
            async with aclosing(events):
                async for event in events:
                    yield event
            self._positions[start.channel] = start.head

    async def _past_of(
        self,
        journal: Journal,
        start: JournalStart,
    ) -> AsyncGenerator[TimedChange | Reset | Notice]:
        try:
            async for change in read_past(journal, start):
                yield change
        except (MalformedError, ScriptRefusedError) as error:
            # Another program wrote it. That concerns this channel alone.
            yield Notice(f"{start.channel}: {error}")

    async def follow(self) -> AsyncGenerator[Event]:
        """Yield what changes from now on. Wait while Redis is away."""
        seconds = FIRST_PAUSE
        while True:
            try:
                async with aclosing(self._follow()) as events:
                    async for event in events:
                        seconds = FIRST_PAUSE
                        yield event
            except (RedisUnavailableError, RedisUnfitError) as error:
                yield Notice(f"{error} Waiting for it.")
            await asyncio.sleep(seconds)
            while await self._failure():
                seconds = min(LONGEST_PAUSE, 2 * seconds)
                await asyncio.sleep(seconds)
            yield Notice("Redis answers again.")

    async def _follow(self) -> AsyncGenerator[TimedChange | Reset]:
        """Yield what changes, until Redis is away."""
        self._together.clear()
        changes = self._tallies.reader.changes(
            None if self._is_open else self._wanted.channels,
            since=self._positions,
            away_seconds=0,
        )
        with reading_errors():
            async with aclosing(changes):
                async for item in changes:
                    for event in self._take(item):
                        if self._is_wanted(item.channel):
                            yield event

    def _take(self, item: Change | Reset) -> list[TimedChange] | list[Reset]:
        """Return an item, or changes that happened together, as soon as their time is known."""
        channel = item.channel
        if isinstance(item, Reset):
            self._positions[channel] = item.position
            return [item]
        together = self._together.setdefault(channel, [])
        together.append(item)
        if item.position == self._positions.get(channel, START):
            return []
        self._positions[channel] = item.position
        at, _ = stream_order(item.position)
        return list(map(TimedChange, self._together.pop(channel), repeat(at)))

    async def _failure(self) -> TallyError | None:
        """Return why Redis cannot be read; None if it can."""
        try:
            with reading_errors():
                await self._tallies.reader.check()
        except (RedisUnavailableError, RedisUnfitError) as error:
            return error
        return None


def _cut_notice(start: JournalStart) -> Notice:
    """Return that changes which are wanted are gone."""
    if start.oldest is None:
        return Notice(f"{start.channel}: its journal has ended. Older changes are gone.")
    oldest = datetime.fromtimestamp(start.oldest / 1000, UTC)
    return Notice(
        f"{start.channel}: the journal reaches back to {oldest:%Y-%m-%d %H:%M:%S} UTC. "
        "Older changes are gone."
    )
