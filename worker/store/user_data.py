"""What Redis keeps of some users, wherever it is. Nothing here writes."""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from worker.store.batch import batched
from worker.store.user_streams import UserStreams, user_of

HASHES_AT_ONCE: Final = 200
FIELDS_AT_ONCE: Final = 1000
"""Fields that one HSCAN looks at."""
MEMBERS_AT_ONCE: Final = 20_000
"""Members of sets that one round trip asks about."""
SPECIAL: Final = re.compile(r"([*?\[\]\\^])")
"""What is no plain character for MATCH."""


class Kind(StrEnum):
    """The keys of messages that hold users by name."""

    ACTIONS = "actions"
    REMOVED = "removed"
    WHO = "who"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A field of a message that belongs to one of the users."""

    kind: Kind
    channel: str
    message_timetoken: str
    field: str
    """As in ``actions``: ``<type>:<value>:<uuid>``."""
    timetoken: str
    """Of the action; empty for ``WHO``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A key of a message, and what its name says."""

    key: str
    kind: Kind
    channel: str
    message_timetoken: str
    tally: str
    """Of a key of ``WHO``, encoded as in ``actions``."""

    def trace(self, field: str, timetoken: str = "") -> Trace:
        return Trace(
            kind=self.kind,
            channel=self.channel,
            message_timetoken=self.message_timetoken,
            field=field,
            timetoken=timetoken,
        )


class UserData(UserStreams):
    """Finds what is kept of some users, by all keys of the namespace."""

    async def traces(self) -> AsyncIterator[list[Trace]]:
        """Yield the fields of messages that belong to the users.

        What is there all the time is yielded at least once.

        Raises:
            DamagedKeyError: another program wrote a key.
        """
        async for names in self._scan(self._keys.pattern):
            places = list(filter(None, map(self._place, names)))
            for part in batched(places, HASHES_AT_ONCE):
                in_hashes = await self._in_hashes(part)
                in_sets = await self._in_sets(part)
                yield in_hashes + in_sets

    def _place(self, key: str) -> _Place | None:
        channel, kind, rest = self._split(key)
        if kind not in list(Kind):
            return None
        message, _, tally = rest.partition(":")
        return _Place(
            key=key,
            kind=Kind(kind),
            channel=channel,
            message_timetoken=message,
            tally=tally,
        )

    async def _in_hashes(self, places: Sequence[_Place]) -> list[Trace]:
        traces: list[Trace] = []
        hashes = [place for place in places if place.kind is not Kind.WHO]
        scan_cursors = dict.fromkeys(hashes, 0)
        while scan_cursors:
            pipe = self._redis.pipeline(transaction=False)
            for place, scan_cursor in scan_cursors.items():
                pipe.hscan(place.key, scan_cursor, self._pattern, FIELDS_AT_ONCE)
            keys = [place.key for place in scan_cursors]
            answers = await self._answers(pipe, keys)
            pages = dict(zip(scan_cursors, answers, strict=True))
            scan_cursors = {}
            for place, (left, fields) in pages.items():
                traces += self._traces_of(place, fields)
                if left:
                    scan_cursors[place] = left
        return traces

    @property
    def _pattern(self) -> bytes | None:
        """Return what fields of a single user match; of several users all are read."""
        if len(self.uuids) > 1:
            return None
        (uuid,) = self.uuids
        return raw("*:" + SPECIAL.sub(r"\\\1", uuid))

    def _traces_of(
        self,
        place: _Place,
        fields: Mapping[str, str],
    ) -> list[Trace]:
        traces: list[Trace] = []
        for field, timetoken in fields.items():
            if user_of(field) in self.uuids:
                trace = place.trace(field, timetoken)
                traces.append(trace)
        return traces

    async def _in_sets(self, places: Sequence[_Place]) -> list[Trace]:
        sets = [place for place in places if place.kind is Kind.WHO]
        # A list of users may be long, and all of it is sent for each set.
        at_once = max(1, MEMBERS_AT_ONCE // len(self.uuids))
        traces: list[Trace] = []
        for part in batched(sets, at_once):
            traces += await self._in_some_sets(part)
        return traces

    async def _in_some_sets(self, sets: Sequence[_Place]) -> list[Trace]:
        uuids = sorted(self.uuids)
        pipe = self._redis.pipeline(transaction=False)
        for place in sets:
            pipe.zmscore(place.key, list(map(raw, uuids)))
        keys = [place.key for place in sets]
        answers = await self._answers(pipe, keys)
        traces: list[Trace] = []
        for place, scores in zip(sets, answers, strict=True):
            for uuid, score in zip(uuids, scores, strict=True):
                if score is not None:
                    trace = place.trace(f"{place.tally}:{uuid}")
                    traces.append(trace)
        return traces


def raw(text: str) -> bytes:
    """Return the bytes of a text, which may hold lone surrogates: no key of ours has them."""
    return text.encode(errors="surrogatepass")
