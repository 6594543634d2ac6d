"""Does each count equal the number of live entries under it?"""

from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from worker.domain.position import Timetoken
from worker.store.keys import read_action_field, tally_field
from worker.store.redis_errors import redis_errors
from worker.store.table import Table

KEYS_AT_ONCE: Final = 1000


@dataclass(frozen=True, slots=True, order=True)
class Inconsistency:
    """A tally that differs from its entries."""

    channel: str
    message_timetoken: Timetoken
    field: str
    """The hash's field; empty for the whole message."""
    problem: str


class Audit(Table):
    """Compares counts and actions of messages; never writes."""

    async def channels(self, channels: Collection[str]) -> list[Inconsistency]:
        """Return every inconsistency of these channels, sorted."""
        inconsistencies: set[Inconsistency] = set()
        async for messages in self._messages(frozenset(channels)):
            for channel, message in messages:
                inconsistencies.update(await self._check(channel, message))
        return sorted(inconsistencies)

    async def _messages(
        self,
        channels: Collection[str],
    ) -> AsyncIterator[set[tuple[str, Timetoken]]]:
        scan_cursor = 0
        while True:
            with redis_errors():
                scan_cursor, keys = await self._redis.scan(
                    scan_cursor,
                    match=self._keys.pattern,
                    count=KEYS_AT_ONCE,
                    _type="hash",
                )
            messages = set(map(self._keys.read_message, keys))
            yield {message for message in messages if message and message[0] in channels}
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
        problems = dict(_problems(counts, actions))
        if (counts or actions) and score is None:
            problems[""] = "not in the index of messages"
        return [Inconsistency(channel, message, *problem) for problem in problems.items()]


def _problems(
    counts: Mapping[str, str],
    actions: Mapping[str, str],
) -> Iterator[tuple[str, str]]:
    live: Counter[str] = Counter()
    for field in actions:
        try:
            type, value, _ = read_action_field(field)
        except ValueError:
            yield field, "a field of actions that cannot be read"
        else:
            live[tally_field(type, value)] += 1
    for field in counts.keys() | live.keys():
        count, entries = counts.get(field), live[field]
        if count is None:
            yield field, f"no count, though {entries} are live"
        elif count != str(entries):
            yield field, f"the count is {count}, though {entries} are live"
        elif count == "0":
            yield field, "a count of zero"
