"""Does Redis agree with itself? Every count must equal the live entries under it. Nothing here writes."""

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from redis.asyncio import Redis

from worker.domain.position import Timetoken
from worker.store.connection import redis_errors
from worker.store.keys import Keys, read_action_field, tally_field

CONCURRENCY: Final = 50
SCANNED_AT_ONCE: Final = 1000


@dataclass(frozen=True, slots=True)
class Inconsistency:
    """One tally that is not what the entries under it say, or that nobody would find."""

    channel: str
    message_timetoken: Timetoken
    field: str
    """The field of the ``counts`` hash; empty where the message as a whole is meant."""
    problem: str


class Audit:
    """Looks at counts and actions of a message as they are at one instant."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = cast("Any", redis)
        self._keys = keys

    async def channels(self, channels: Iterable[str]) -> list[Inconsistency]:
        """Return every flaw in these channels, as found in one pass over all keys.

        Raises:
            RedisUnavailableError: begin again.
        """
        wanted = set(channels)
        flaws: list[Inconsistency] = []
        async for found in self._messages():
            messages = sorted((channel, message) for channel, message in found if channel in wanted)
            for start in range(0, len(messages), CONCURRENCY):
                flaws += await self._look(messages[start : start + CONCURRENCY])
        return sorted(
            set(flaws),
            key=lambda flaw: (flaw.channel, flaw.message_timetoken, flaw.field, flaw.problem),
        )

    async def _messages(self) -> AsyncIterator[set[tuple[str, Timetoken]]]:
        """Yield the messages that have a key of counts or of actions, whether an index knows them or not."""
        place = 0
        while True:
            with redis_errors():
                place, keys = await self._redis.scan(
                    int(place), match=self._keys.pattern, count=SCANNED_AT_ONCE, _type="hash"
                )
            yield {message for key in keys if (message := self._keys.read_message(key))}
            if not int(place):
                return

    async def _look(self, messages: list[tuple[str, Timetoken]]) -> list[Inconsistency]:
        with redis_errors():
            # One transaction a message: other writers must not come between its counts and its actions.
            pipes = [self._redis.pipeline(transaction=True) for _ in messages]
            told = []
            for pipe, (channel, message) in zip(pipes, messages, strict=True):
                pipe.hgetall(self._keys.counts(channel, message))
                pipe.hgetall(self._keys.actions(channel, message))
                pipe.zscore(self._keys.messages(channel), message)
                told.append(await pipe.execute())
        return [
            Inconsistency(channel, message, field, problem)
            for (channel, message), (counts, actions, score) in zip(messages, told, strict=True)
            for field, problem in inconsistencies_of(counts, actions, is_indexed=score is not None)
        ]


def inconsistencies_of(
    counts: Mapping[str, str], actions: Mapping[str, str], *, is_indexed: bool
) -> list[tuple[str, str]]:
    """Return field and problem of everything wrong with one message."""
    live: Counter[str] = Counter()
    flaws = []
    for field in actions:
        try:
            type, value, _ = read_action_field(field)
        except ValueError:
            flaws.append((field, "a field of actions that cannot be read"))
        else:
            live[tally_field(type, value)] += 1
    for field in counts.keys() | live.keys():
        count = counts.get(field)
        if count is None:
            flaws.append((field, f"no count, though {live[field]} are live"))
        elif count != str(live[field]):
            flaws.append((field, f"the count is {count}, though {live[field]} are live"))
        elif count == "0":
            flaws.append((field, "a count of zero"))
    if (counts or actions) and not is_indexed:
        flaws.append(("", "not in the index of messages"))
    return flaws
