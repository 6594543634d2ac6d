"""The messages with the most reactions: of one channel, or of the channels that changed last."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from heapq import nlargest
from operator import attrgetter
from typing import Final

from worker.domain.position import Timetoken, is_after, order
from worker.domain.tally import Counts
from worker.errors import DamagedKeyError, MalformedError
from worker.source import names
from worker.store.heads import Heads, latest
from worker.store.reader import Tallies, opened_tallies, reading_errors

CHANNELS: Final = 50
"""Channels that are looked at, those that changed last."""
MESSAGES: Final = 200
"""Messages of each of them that are looked at, those that changed last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is counted, and of which messages."""

    type: str | None = None
    """None: every type."""
    value: str | None = None
    """None: every value."""
    since: Timetoken | None = None
    """The oldest message; None: every message."""
    limit: int = 10

    def count(self, counts: Counts) -> int:
        """Return how much of a message is counted."""
        of_type = counts.get(self.type or "", {})
        chosen = counts.values() if self.type is None else [of_type]
        return sum(map(self._count_values, chosen))

    def _count_values(self, counts: Mapping[str, int]) -> int:
        if self.value is None:
            return sum(counts.values())
        return counts.get(self.value, 0)

    def covers(self, timetoken: Timetoken) -> bool:
        """Tell whether a message is not too old."""
        return self.since is None or not is_after(self.since, timetoken)


@dataclass(frozen=True, slots=True)
class RankedMessage:
    """A message, how many of its reactions are counted, and all of them."""

    channel: str
    timetoken: Timetoken
    count: int
    counts: Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Top:
    """The messages with the most reactions, most first."""

    messages: tuple[RankedMessage, ...]
    in_doubt: frozenset[str]
    """Channels among them that may have missed events."""
    looked_at: tuple[str, ...]
    """The channels that were looked at."""
    known: int = 0
    """How many channels there are."""
    is_known: bool = True
    """Whether a worker has ever seen the channel that was asked for."""
    failures: tuple[str, ...] = ()
    """Which channels could not be looked at, and why."""


async def read_top(
    redis_url: str | None,
    namespace: str,
    channel: str | None,
    wanted: Wanted,
) -> Top:
    """Return the top of a channel, or of the channels that changed last.

    Raises:
        ConfigurationError: PubNub would refuse the channel's name.
        RedisUnavailableError: Redis does not answer.
        RedisUnfitError: there are no tallies, or they have another schema.
        DamagedKeyError: another program wrote a key that is read.
    """
    name = channel and names.channel(channel)
    async with opened_tallies(redis_url, namespace) as tallies:
        if name:
            return await _top_of_channel(tallies, name, wanted)
        return await _top_of_all(tallies, wanted)


async def _top_of_channel(tallies: Tallies, channel: str, wanted: Wanted) -> Top:
    reader = tallies.reader
    async with tallies.reading(channel):
        best = await reader.top(
            channel,
            type=wanted.type,
            value=wanted.value,
            since=wanted.since,
            limit=wanted.limit,
        )
        timetokens = list(map(attrgetter("timetoken"), best))
        counts = await reader.get_many(channel, timetokens)
        in_doubt = await reader.in_doubt([channel])
    is_known = bool(best) or await tallies.is_known(channel)
    amounts = map(attrgetter("count"), best)
    of_best = map(counts.__getitem__, timetokens)
    ranked = map(partial(RankedMessage, channel), timetokens, amounts, of_best)
    return Top(
        messages=tuple(ranked),
        in_doubt=in_doubt,
        looked_at=(channel,),
        is_known=is_known,
    )


async def _top_of_all(tallies: Tallies, wanted: Wanted) -> Top:
    with reading_errors():
        known = await tallies.reader.channels()
    heads = await Heads(tallies.redis, tallies.keys).read(known)
    looked_at = latest(heads, CHANNELS)
    best: list[RankedMessage] = []
    failures: list[str] = []
    for channel in looked_at:
        try:
            candidates = await _candidates(tallies, channel, wanted)
        except (DamagedKeyError, MalformedError) as error:
            failures.append(f"{channel}: {error}")
            continue
        best = nlargest(wanted.limit, [*best, *candidates], key=_rank)
    channels = set(map(attrgetter("channel"), best))
    with reading_errors():
        in_doubt = await tallies.reader.in_doubt(sorted(channels))
    return Top(
        messages=tuple(best),
        in_doubt=in_doubt,
        looked_at=tuple(looked_at),
        known=len(known),
        failures=tuple(failures),
    )


async def _candidates(
    tallies: Tallies,
    channel: str,
    wanted: Wanted,
) -> list[RankedMessage]:
    """Return those of the channel's latest messages that are wanted."""
    async with tallies.reading(channel):
        recent = await tallies.reader.recent(channel, limit=MESSAGES)
    timetokens = list(filter(wanted.covers, map(attrgetter("timetoken"), recent)))
    async with tallies.reading(channel, timetokens):
        counts = await tallies.reader.get_many(channel, timetokens)
    return list(_counted(channel, counts, wanted))


def _counted(
    channel: str,
    messages: Mapping[Timetoken, Counts],
    wanted: Wanted,
) -> Iterator[RankedMessage]:
    for timetoken, counts in messages.items():
        count = wanted.count(counts)
        if count:
            yield RankedMessage(channel, timetoken, count, counts)


def _rank(message: RankedMessage) -> tuple[int, int, str]:
    return message.count, *order(message.timetoken)
