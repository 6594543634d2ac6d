"""Entries of journals and of the quarantine that name some users."""

import json
import re
from bisect import bisect_left
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final

from redis.asyncio import Redis

from reaction_tally.errors import MalformedEntryError
from reaction_tally.journal import JournalChange, read_entry
from reaction_tally.keys import Keys
from worker.store.batch import batched
from worker.store.key_scan import KeyScan
from worker.store.tables import PAYLOAD_CHARACTERS

JOURNALS_AT_ONCE: Final = 20
ENTRIES_AT_ONCE: Final = 200
"""Entries of each stream that one round trip reads."""
LEAST_SHOWN: Final = 2
"""A payload that is cut names a user if it ends with a quote and one more character of the name."""
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_CHAIN: Final = frozenset({"after", "origin"})
"""The fields of a journal's entry that are no change."""

Entry = tuple[str, Mapping[str, str]]
"""The id of a stream's entry, and its fields."""


def changes_of(fields: Mapping[str, str]) -> Iterator[JournalChange]:
    """Yield the changes of a journal's entry. What no worker writes is left out."""
    for number, text in fields.items():
        if number in _CHAIN:
            continue
        with suppress(MalformedEntryError):
            entry = {"after": "", "origin": "", "0": text}
            yield from read_entry("0-0", entry).changes


def user_of(field: str) -> str:
    """Return the user of a field of ``actions``; an empty text if it has none.

    The uuid may hold colons. A field of another program may have none.
    """
    _, _, rest = field.partition(":")
    _, _, user = rest.partition(":")
    return user


def _user_of_change(text: str) -> str:
    """Return the user of a change in a journal; an empty text for other fields.

    Journals have many changes. To read them as a follower does takes ten times as long.
    """
    *_, field = text.split(" ", 5)
    return user_of(field)


class Names:
    """Finds names of users in entries of the quarantine."""

    def __init__(self, uuids: Collection[str]) -> None:
        self._sorted = sorted(map(json.dumps, uuids))
        self._quoted = frozenset(self._sorted)
        self._longest = max(map(len, self._sorted), default=0)

    def are_in(self, letter: Mapping[str, str]) -> bool:
        """Tell whether an entry names one of the users.

        Its payload is JSON. A text in it that is a name counts, wherever it stands.
        Where the payload was cut, a part of a name counts, too.
        """
        payload = letter.get("payload", "")
        texts = _STRING.findall(payload)
        if not self._quoted.isdisjoint(texts):
            return True
        is_cut = len(payload) >= PAYLOAD_CHARACTERS
        return is_cut and any(map(self._is_beginning, self._ends(payload)))

    def _ends(self, payload: str) -> Iterator[str]:
        """Yield what may be a name without its end: from a quote on."""
        longest = min(self._longest, len(payload))
        for length in range(LEAST_SHOWN, longest + 1):
            if payload[-length] == '"':
                yield payload[-length:]

    def _is_beginning(self, end: str) -> bool:
        # A list of users may be long. Where the text would stand is the first one that begins so.
        at = bisect_left(self._sorted, end)
        return at < len(self._sorted) and self._sorted[at].startswith(end)


class UserStreams(KeyScan):
    """Finds the entries of streams that name some users, none of them with an empty name."""

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        uuids: Collection[str],
    ) -> None:
        super().__init__(redis, keys)
        self.uuids = frozenset(uuids)
        self._names = Names(self.uuids)

    async def entries(self) -> AsyncIterator[tuple[str, list[Entry]]]:
        """Yield channels, each with entries of its journal that name one of the users.

        Raises:
            DamagedKeyError: another program wrote a key.
        """
        pattern = f"{self._keys.namespace}:{{*}}:journal"
        async for names in self._scan(pattern):
            journals = list(filter(self._is_journal, names))
            for part in batched(journals, JOURNALS_AT_ONCE):
                async for key, entries in self._in_streams(part):
                    channel, _, _ = self._split(key)
                    yield channel, list(filter(self._is_named, entries))

    async def letters(self) -> AsyncIterator[list[Entry]]:
        """Yield entries of the quarantine that name one of the users."""
        streams = self._in_streams([self._keys.quarantine])
        async for _, entries in streams:
            yield list(filter(self._is_letter, entries))

    def _is_journal(self, key: str) -> bool:
        # A type may end as a channel does: its who key has the form of a journal's.
        _, kind, _ = self._split(key)
        return kind == "journal"

    def _is_named(self, entry: Entry) -> bool:
        _, fields = entry
        users = map(_user_of_change, fields.values())
        return not self.uuids.isdisjoint(users)

    def _is_letter(self, entry: Entry) -> bool:
        _, letter = entry
        return self._names.are_in(letter)

    async def _in_streams(
        self,
        keys: Sequence[str],
    ) -> AsyncIterator[tuple[str, list[Entry]]]:
        """Yield the keys of streams with their entries, some at once."""
        positions = dict.fromkeys(keys, "-")
        while positions:
            pipe = self._redis.pipeline(transaction=False)
            for key, start in positions.items():
                pipe.xrange(key, start, "+", ENTRIES_AT_ONCE)
            answers = await self._answers(pipe, list(positions))
            pages = dict(zip(positions, answers, strict=True))
            positions = {}
            for key, entries in pages.items():
                yield key, entries
                if len(entries) == ENTRIES_AT_ONCE:
                    newest, _ = entries[-1]
                    positions[key] = f"({newest}"
