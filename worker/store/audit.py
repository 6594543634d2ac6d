"""Does each count equal the number of live entries under it?"""

from collections import Counter
from collections.abc import (
    AsyncIterator,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass
from typing import Final

from worker.domain.position import Timetoken
from worker.errors import ScriptRefusedError
from worker.store.damage import types_of_channel, types_of_messages, wrong_type
from worker.store.entries import FIELDS_AT_ONCE, is_readable
from worker.store.keys import tally_of
from worker.store.redis_errors import redis_errors
from worker.store.table import Table

KEYS_AT_ONCE: Final = 1000


@dataclass(frozen=True, slots=True, order=True)
class Inconsistency:
    """A tally that differs from its entries."""

    channel: str
    message_timetoken: Timetoken
    """Empty for the whole channel."""
    field: str
    """The hash's field; empty for the whole message."""
    problem: str


@dataclass(frozen=True, slots=True)
class Suspect:
    """A message that may have to be rebuilt."""

    message_timetoken: Timetoken
    tallies: Sequence[str] = ()
    """Fields of ``counts`` that differ from the actions."""
    strays: Sequence[str] = ()
    """Fields of ``actions`` that belong to nobody, or have no time."""


class Audit(Table):
    """Compares counts and actions of messages; never writes."""

    async def channels(self, channels: Collection[str]) -> list[Inconsistency]:
        """Return every inconsistency of these channels, sorted."""
        inconsistencies: set[Inconsistency] = set()
        async for messages in self._messages(frozenset(channels)):
            for channel, message in messages:
                inconsistencies.update(await self._check(channel, message))
        return sorted(inconsistencies)

    async def suspects(
        self,
        channel: str,
        messages: Sequence[Timetoken],
    ) -> AsyncIterator[Suspect]:
        """Yield the messages whose counts differ from their actions.

        An event may arrive between two reads,
        so a message may be a suspect although nothing differs.
        """
        pipe = self._redis.pipeline(transaction=False)
        for message in messages:
            pipe.hlen(self._keys.actions(channel, message))
        with redis_errors():
            sizes = await pipe.execute()

        for part in _parts(zip(messages, sizes, strict=True)):
            for suspect in await self._suspects(channel, part):
                yield suspect

    async def _suspects(
        self,
        channel: str,
        messages: Sequence[Timetoken],
    ) -> list[Suspect]:
        pipe = self._redis.pipeline(transaction=False)
        for message in messages:
            pipe.hgetall(self._keys.counts(channel, message))
            pipe.hgetall(self._keys.actions(channel, message))
        with redis_errors():
            answers = await pipe.execute()

        suspects: list[Suspect] = []
        hashes = zip(messages, answers[::2], answers[1::2], strict=True)
        for message, counts, actions in hashes:
            live, strays = _live(actions)
            tallies = sorted(dict(_problems(counts, live)))
            if tallies or strays:
                suspects.append(Suspect(message, tallies, strays))
        return suspects

    async def unindexed(
        self,
        channels: Collection[str],
    ) -> dict[str, set[Timetoken]]:
        """Return the messages that Redis holds and the index lacks.

        Channel → messages. Every key of Redis is looked at once.
        """
        unindexed: dict[str, set[Timetoken]] = {}
        async for messages in self._messages(frozenset(channels)):
            for channel, message in await self._without_score(sorted(messages)):
                unindexed.setdefault(channel, set()).add(message)
        return unindexed

    async def lacks_any(
        self,
        channel: str,
        messages: Collection[Timetoken],
    ) -> bool:
        """Tell whether Redis holds one of the messages, and the index lacks it."""
        pairs = [(channel, message) for message in sorted(messages)]
        keys: list[str] = []
        for _, message in await self._without_score(pairs):
            keys += self._keys.message(channel, message)[:2]
        if not keys:
            return False
        with redis_errors():
            return bool(await self._redis.exists(*keys))

    async def _without_score(
        self,
        messages: Sequence[tuple[str, Timetoken]],
    ) -> list[tuple[str, Timetoken]]:
        """Return those of the messages that are not in their index."""
        pipe = self._redis.pipeline(transaction=False)
        for channel, message in messages:
            pipe.zscore(self._keys.messages(channel), message)
        with redis_errors():
            # An index of the wrong type is an error of its channel alone.
            scores = await pipe.execute(raise_on_error=False)
        pairs = zip(messages, scores, strict=True)
        return [message for message, score in pairs if score is None]

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
        try:
            with redis_errors():
                counts, actions, score = await pipe.execute()
        except ScriptRefusedError as error:
            damage = await self._damage(channel, message)
            return [damage or Inconsistency(channel, message, "", str(error))]
        live, strays = _live(actions)
        problems = dict(_problems(counts, live))
        problems |= dict.fromkeys(strays, "a field of actions that cannot be read")
        if (counts or actions) and score is None:
            problems[""] = "not in the index of messages"
        return [Inconsistency(channel, message, *problem) for problem in problems.items()]

    async def _damage(self, channel: str, message: Timetoken) -> Inconsistency | None:
        """Return which key of the channel or the message another program wrote."""
        types = types_of_channel(self._keys, channel)
        subject = ""
        with redis_errors():
            damage = await wrong_type(self._redis, types)
            if not damage:
                subject = message
                types = types_of_messages(self._keys, channel, [message])
                damage = await wrong_type(self._redis, types)
        if not damage:
            return None
        problem = damage[1].removeprefix("Redis's ")
        return Inconsistency(channel, subject, "", problem)


def _parts(
    sizes: Iterable[tuple[Timetoken, int]],
) -> Iterator[list[Timetoken]]:
    """Yield messages that have some thousand actions together."""
    part: list[Timetoken] = []
    fields = 0
    for message, size in sizes:
        if part and fields + size > FIELDS_AT_ONCE:
            yield part
            part = []
            fields = 0
        part.append(message)
        fields += size
    if part:
        yield part


def _live(actions: Mapping[str, Timetoken]) -> tuple[Counter[str], list[str]]:
    """Return the number of live entries of each tally, and stray fields."""
    live: Counter[str] = Counter()
    strays: list[str] = []
    for field, timetoken in actions.items():
        if not is_readable(field, timetoken):
            strays.append(field)
            continue
        try:
            live[tally_of(field)] += 1
        except ValueError:
            strays.append(field)
    return live, strays


def _problems(
    counts: Mapping[str, str],
    live: Counter[str],
) -> Iterator[tuple[str, str]]:
    """Yield fields of counts, and what is wrong with them."""
    for field in counts.keys() | live.keys():
        count, entries = counts.get(field), live[field]
        if count is None:
            yield field, f"no count, though {entries} are live"
        elif count != str(entries):
            yield field, f"the count is {count}, though {entries} are live"
        elif count == "0":
            yield field, "a count of zero"
