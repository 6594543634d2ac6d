"""Deletes what Redis keeps of users who are forgotten."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from redis.asyncio import Redis

from reaction_tally.keys import RANKED_ABOVE, Keys
from worker.store.batch import MAX_BATCH, batched
from worker.store.redis_errors import redis_errors
from worker.store.scripts import Call, call_script
from worker.store.table import Table
from worker.store.user_data import Kind, Trace
from worker.store.user_streams import Entry

CALLS_AT_ONCE: Final = 50
"""Scripts of one round trip. One about a message of 25,000 actions takes Redis some 20 ms."""


@dataclass(slots=True)
class Deleted:
    """What was deleted."""

    actions: int = 0
    """Live ones, which were counted."""
    tombstones: int = 0


@dataclass(frozen=True, slots=True)
class _Part:
    """Some fields of one message, and its who keys that the script needs."""

    channel: str
    message_timetoken: str
    fields: tuple[str, ...]
    who: tuple[str, ...]


class UserErasure(Table):
    """Deletes the traces of users, and makes the counts exact without them."""

    def __init__(self, redis: Redis, keys: Keys, journal_seconds: int) -> None:
        super().__init__(redis, keys)
        self._journal_seconds = journal_seconds

    async def erase(self, traces: Iterable[Trace]) -> Deleted:
        """Delete traces. To delete twice is to delete once."""
        deleted = Deleted()
        for parts in batched(self._parts(traces), CALLS_AT_ONCE):
            waiting = parts
            while waiting:
                waiting = await self._call_all(waiting, deleted)
        return deleted

    async def delete_entries(
        self,
        channel: str,
        entries: Sequence[Entry],
    ) -> int:
        """Delete entries of a journal; return how many were there.

        Followers see by ``after`` and ``head`` that they are gone.
        """
        return await self._delete(self._keys.journal(channel), entries)

    async def delete_letters(self, entries: Sequence[Entry]) -> int:
        """Delete entries of the quarantine; return how many were there."""
        return await self._delete(self._keys.quarantine, entries)

    async def _delete(
        self,
        key: str,
        entries: Sequence[Entry],
    ) -> int:
        count = 0
        for part in batched(entries, MAX_BATCH):
            ids = [entry_id for entry_id, _ in part]
            with redis_errors():
                count += await self._redis.xdel(key, *ids)
        return count

    def _parts(self, traces: Iterable[Trace]) -> list[_Part]:
        fields: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        who: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        for trace in traces:
            message = trace.channel, trace.message_timetoken
            fields[message].add(trace.field)
            if trace.kind is Kind.WHO:
                who[message].add(self._who_key(trace))
        return [
            _Part(*message, tuple(part), tuple(who[message]))
            for message, owned in fields.items()
            for part in batched(sorted(owned), MAX_BATCH)
        ]

    def _who_key(self, trace: Trace) -> str:
        # Its name ends as the field begins.
        type, value, _ = trace.field.split(":", 2)
        prefix = self._keys.prefix(trace.channel)
        return f"{prefix}who:{trace.message_timetoken}:{type}:{value}"

    async def _call_all(self, parts: Sequence[_Part], deleted: Deleted) -> list[_Part]:
        """Call the script for each part; return the parts that lack who keys, with these."""
        calls = list(map(self._call_of, parts))
        with redis_errors():
            answers = await call_script(self._redis, "forget_user", *calls)
        waiting: list[_Part] = []
        for part, (actions, tombstones, lacking) in zip(parts, answers, strict=True):
            deleted.actions += actions
            deleted.tombstones += tombstones
            if lacking:
                who = {*part.who, *lacking}
                waiting.append(_Part(part.channel, part.message_timetoken, part.fields, (*who,)))
        return waiting

    def _call_of(self, part: _Part) -> Call:
        _, journal, head = self._keys.changed(part.channel)
        message = self._keys.message(part.channel, part.message_timetoken)
        options = (self._journal_seconds, part.message_timetoken, RANKED_ABOVE)
        return (journal, head, *message, *part.who), (*options, *part.fields)
