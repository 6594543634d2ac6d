"""Does Redis agree with itself?

Every count must equal the number of live entries under it.
"""

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from redis.asyncio import Redis

from worker.domain.position import Timetoken
from worker.store.keys import Keys, read_action_field, tally_field
from worker.store.redis_errors import redis_errors

KEYS_AT_ONCE: Final = 1000


@dataclass(frozen=True, slots=True, order=True)
class Inconsistency:
    """A tally that differs from its entries, or that no index knows."""

    channel: str
    message_timetoken: Timetoken
    field: str
    """The field of the hash; empty if the whole message is meant."""
    problem: str


Location = tuple[str, Timetoken]
"""Channel and message timetoken."""


class Audit:
    """Compares counts and actions of messages; never writes."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = cast("Any", redis)
        self._keys = keys

    async def channels(self, channels: Iterable[str]) -> list[Inconsistency]:
        """Return every inconsistency of these channels, sorted.

        They are found in one pass over all keys.

        Raises:
            RedisUnavailableError: begin again.
        """
        wanted = set(channels)
        inconsistencies: set[Inconsistency] = set()
        async for locations in self._locations():
            for location in locations:
                if location[0] in wanted:
                    inconsistencies.update(await self._check(*location))
        return sorted(inconsistencies)

    async def _locations(self) -> AsyncIterator[set[Location]]:
        """Yield the messages that have counts or actions, indexed or not."""
        scan_cursor = 0
        while True:
            with redis_errors():
                scan_cursor, keys = await self._redis.scan(
                    scan_cursor,
                    match=self._keys.pattern,
                    count=KEYS_AT_ONCE,
                    _type="hash",
                )
            locations = set(map(self._keys.read_message, keys))
            yield {location for location in locations if location}
            if not scan_cursor:
                return

    async def _check(self, channel: str, message: Timetoken) -> list[Inconsistency]:
        # One transaction a message:
        # no other writer comes between its counts and its actions.
        pipe = self._redis.pipeline(transaction=True)
        pipe.hgetall(self._keys.counts(channel, message))
        pipe.hgetall(self._keys.actions(channel, message))
        pipe.zscore(self._keys.messages(channel), message)
        with redis_errors():
            counts, actions, score = await pipe.execute()
        problems = _problems(counts, actions)
        if (counts or actions) and score is None:
            problems[""] = "not in the index of messages"
        return [
            Inconsistency(channel, message, field, problem) for field, problem in problems.items()
        ]


def _problems(counts: Mapping[str, str], actions: Mapping[str, str]) -> dict[str, str]:
    """Return field → problem."""
    problems: dict[str, str] = {}
    live: Counter[str] = Counter()
    for field in actions:
        tally = _tally_of(field)
        if tally is None:
            problems[field] = "a field of actions that cannot be read"
        else:
            live[tally] += 1
    for field in counts.keys() | live.keys():
        problem = _problem(counts.get(field), live[field])
        if problem:
            problems[field] = problem
    return problems


def _tally_of(field: str) -> str | None:
    """Return the field of ``counts`` for a field of ``actions``."""
    try:
        type, value, _ = read_action_field(field)
    except ValueError:
        return None
    return tally_field(type, value)


def _problem(count: str | None, live: int) -> str | None:
    if count is None:
        return f"no count, though {live} are live"
    if count != str(live):
        return f"the count is {count}, though {live} are live"
    if count == "0":
        return "a count of zero"
    return None
