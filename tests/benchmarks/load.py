"""The events of benchmarks: from a seed, as PubNub sends them, and the counts that follow."""

import json
import random
from bisect import bisect
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

from redis.asyncio import Redis

from reaction_tally.keys import Keys
from tests.benchmarks.answering import ANSWER, FIRST
from tests.unclaimed import UnclaimedReader
from worker.domain.action import Added, Identity, Observed, Removed

VALUES: Final = ("👍", "🎉", "😀", "❤️", "🚀")

Counts = Counter[tuple[str, str, str, str]]
"""(channel, message timetoken, type, value) → count."""


def history(
    count: int,
    seed: int = 1,
    *,
    channels: int = 20,
    messages: int = 5_000,
    removals: float = 0.15,
    twice: float = 0.02,
    name: str = "channel-{:04d}",
) -> list[Observed]:
    """Return so many events on messages by Zipf's law; some are removals, some repetitions."""
    chance = random.Random(seed)
    weights = list(accumulate(1 / rank for rank in range(1, messages + 1)))
    places = [
        (name.format(number % channels), str(FIRST - 1 - number)) for number in range(messages)
    ]
    events, live = list[Observed](), list[Added]()
    for number in range(count):
        at, what = str(FIRST + 2 * number), chance.random()
        if live and what < removals:
            index = chance.randrange(len(live))
            live[index], live[-1] = live[-1], live[index]
            gone = live.pop()
            events.append(Removed(gone.identity, gone.action_timetoken, at))
        elif events and what > 1 - twice:
            events.append(events[-1])
        else:
            channel, message = places[
                min(messages - 1, bisect(weights, chance.random() * weights[-1]))
            ]
            uuid = f"{chance.getrandbits(128):032x}"
            uuid = "-".join((uuid[:8], uuid[8:12], uuid[12:16], uuid[16:20], uuid[20:]))
            live.append(
                Added(Identity(channel, message, "reaction", chance.choice(VALUES), uuid), at, at)
            )
            events.append(live[-1])
    return events


def truth(events: Sequence[Observed]) -> Counts:
    """Return the counts that must result."""
    added, removed = (
        {(event.identity, event.action_timetoken) for event in events if isinstance(event, kind)}
        for kind in (Added, Removed)
    )
    live = {identity for identity, _ in added - removed}
    return Counter((it.channel, it.message_timetoken, it.type, it.value) for it in live)


async def found(url: str, events: Sequence[Observed]) -> Counts:
    """Return the counts of these messages in Redis."""
    counts: Counts = Counter()
    by_channel: dict[str, set[str]] = {}
    for event in events:
        by_channel.setdefault(event.identity.channel, set()).add(event.identity.message_timetoken)
    async with UnclaimedReader.from_url(url) as reader:
        for channel, messages in by_channel.items():
            for message, types in (await reader.get_many(channel, sorted(messages))).items():
                for type, values in types.items():
                    for value, count in values.items():
                        counts[channel, message, type, value] = count
    return counts


async def broken_counts(redis: Redis, events: Sequence[Observed]) -> int:
    """Return how many messages have counts that are not their live entries."""
    keys, broken = Keys(), 0
    for channel, message in {
        (event.identity.channel, event.identity.message_timetoken) for event in events
    }:
        counts = await redis.hvals(keys.counts(channel, message))
        broken += sum(map(int, counts)) != await redis.hlen(keys.actions(channel, message))
    return broken


def answers(events: Sequence[Observed], size: int = ANSWER) -> Iterator[bytes]:
    """Yield subscribe answers of so many events; a cursor is ``FIRST`` plus earlier events."""
    for start in range(0, len(events), size):
        messages = [announced(event) for event in events[start : start + size]]
        document = {"t": {"t": str(FIRST + start + size), "r": 1}, "m": messages}
        yield json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def data(event: Observed) -> dict[str, str]:
    """Return an action as PubNub's events and lists have it, without the user."""
    return {
        "type": event.identity.type,
        "value": event.identity.value,
        "actionTimetoken": event.action_timetoken,
        "messageTimetoken": event.identity.message_timetoken,
    }


def announced(event: Observed) -> dict[str, object]:
    """Return an event as PubNub sends it."""
    kind = "added" if isinstance(event, Added) else "removed"
    return {
        "a": "5",
        "f": 0,
        "e": 3,
        "i": event.identity.uuid,
        "p": {"t": event.published, "r": 1},
        "k": "demo",
        "c": event.identity.channel,
        "d": {"source": "actions", "version": "1.0", "event": kind, "data": data(event)},
    }
