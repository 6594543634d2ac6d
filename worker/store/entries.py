"""The entries in Redis, for a comparison with PubNub's list."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import accumulate, repeat
from typing import Final

from reaction_tally.keys import action_field, read_action_field
from worker.domain.action import Identity
from worker.domain.entry import Entry
from worker.domain.position import TICKS_PER_MILLISECOND, Range, Timetoken, milliseconds
from worker.domain.seen_set import EntryKey
from worker.errors import DamagedKeyError, ScriptRefusedError
from worker.store.batch import batched
from worker.store.damage import raise_if_damaged
from worker.store.redis_errors import redis_errors
from worker.store.table import Table, retried

MESSAGES_AT_ONCE: Final = 100
INDEX_PAGE: Final = 1000
"""Messages of the index that are read at once, in the order of their newest event."""
FIELDS_AT_ONCE: Final = 2000
"""Fields of all these messages together."""
LEAST_FIELDS: Final = 100
"""Fields of each message, at least."""
PIECE_ENTRIES: Final = 20_000
PIECE_MESSAGES: Final = 2_000
"""A piece of a channel's past has so many entries and messages, or a few more."""
PUBNUB_DIGITS: Final = 17
"""The length of PubNub's own timetokens."""

Message = tuple[Timetoken, Mapping[str, Timetoken]]
"""Message timetoken; field of ``actions`` → timetoken."""
Scan = tuple[int, Sequence[tuple[Timetoken, float]]]
"""An answer to ZSCAN."""


def entry_keys(message: Message) -> Iterator[EntryKey]:
    """Return the keys of a message's entries."""
    timetoken, fields = message
    return zip(repeat(timetoken), fields, fields.values(), strict=False)


def identity(channel: str, entry_key: EntryKey) -> Identity:
    """Return the identity of an entry."""
    timetoken, field, _ = entry_key
    return Identity(channel, timetoken, *read_action_field(field))


class Messages(Table):
    """Reads the index of a channel's messages."""

    async def messages(
        self,
        channel: str,
        since_milliseconds: int | None = None,
    ) -> AsyncIterator[Sequence[Timetoken]]:
        """Yield messages with an event since then, a hundred at once."""
        pages = self._all_messages(channel)
        if since_milliseconds is not None:
            pages = self._changed_messages(channel, since_milliseconds)
        async for page in pages:
            for part in batched(page, MESSAGES_AT_ONCE):
                yield part

    async def _all_messages(
        self,
        channel: str,
    ) -> AsyncIterator[list[Timetoken]]:
        index = self._keys.messages(channel)
        scan_cursor = 0
        while True:
            with redis_errors():
                answer = await self._redis.zscan(index, scan_cursor, count=MESSAGES_AT_ONCE)
            scan_cursor, scored = answer
            yield [timetoken for timetoken, _ in scored]
            if not scan_cursor:
                return

    async def _changed_messages(
        self,
        channel: str,
        since: int,
    ) -> AsyncIterator[list[Timetoken]]:
        """Yield messages in the order of their newest event, the oldest first.

        A message that gets an event meanwhile moves up, and comes again.
        So none is passed over.
        """
        index = self._keys.messages(channel)
        count = INDEX_PAGE
        seen: set[Timetoken] = set()
        while True:
            with redis_errors():
                scored = await self._redis.zrangebyscore(
                    index,
                    since,
                    "+inf",
                    start=0,
                    num=count,
                    withscores=True,
                )
            yield [timetoken for timetoken, _ in scored if timetoken not in seen]
            if len(scored) < count:
                return
            newest = int(scored[-1][1])
            seen = {timetoken for timetoken, score in scored if int(score) == newest}
            # The next page begins with the newest millisecond of this one,
            # and must be longer if all of its messages are of that one.
            count = count * 2 if newest == since else INDEX_PAGE
            since = newest

    @retried
    async def may_have_older(self, channels: Sequence[str], than: Timetoken) -> set[str]:
        """Return the channels that may have a message older than that.

        A channel with very many messages may have one.

        Raises:
            ScriptRefusedError: an index has the wrong type.
        """
        indexes = map(self._keys.messages, channels)
        answers = await self._each("zscan", indexes)
        pairs = zip(channels, answers, strict=True)
        return {channel for channel, answer in pairs if _may_have_older(answer, than)}

    @retried
    async def oldest(self, channel: str) -> Timetoken | None:
        """Return the oldest message with a timetoken of PubNub's length."""
        oldest: list[Timetoken] = []
        async for timetokens in self.messages(channel):
            dated = filter(_has_pubnub_digits, timetokens)
            oldest = sorted([*oldest, *dated])[:1]
        return next(iter(oldest), None)

    @asynccontextmanager
    async def damage_named(self, channel: str) -> AsyncIterator[None]:
        """Let a refusal name the channel's damaged key.

        Raises:
            DamagedKeyError: another program wrote this key.
        """
        try:
            yield
        except DamagedKeyError:
            raise
        except ScriptRefusedError:
            await self._raise_damage(channel)
            raise

    @retried
    async def _raise_damage(self, channel: str) -> None:
        """Look at every key of a channel; first at the index of its messages."""
        await raise_if_damaged(self._redis, self._keys, channel)
        async for timetokens in self.messages(channel):
            await raise_if_damaged(self._redis, self._keys, channel, timetokens)


class Entries(Messages):
    """Reads entries; never writes."""

    async def scan(
        self,
        channel: str,
        since: Timetoken | None = None,
    ) -> AsyncIterator[list[Message]]:
        """Yield the channel's live entries, some thousand at once.

        An entry that is live all the time is yielded at least once.
        With ``since``, messages whose newest event is older are left out.
        If Redis goes away, begin again.
        """
        oldest = milliseconds(since) if since else None
        async for timetokens in self.messages(channel, oldest):
            scan_cursors = dict.fromkeys(timetokens, 0)
            while scan_cursors:
                messages, scan_cursors = await self._scan_hashes(channel, scan_cursors)
                yield messages

    async def _scan_hashes(
        self,
        channel: str,
        scan_cursors: Mapping[Timetoken, int],
    ) -> tuple[list[Message], dict[Timetoken, int]]:
        """Return a part of each message, and the unfinished cursors."""
        # A message with very many reactions is soon the only one left.
        # Then it is read in larger parts.
        count = max(LEAST_FIELDS, FIELDS_AT_ONCE // len(scan_cursors))
        pipe = self._redis.pipeline(transaction=False)
        for timetoken, scan_cursor in scan_cursors.items():
            key = self._keys.actions(channel, timetoken)
            pipe.hscan(key, scan_cursor, count=count)
        with redis_errors():
            answers = await pipe.execute()
        pairs = list(zip(scan_cursors, answers, strict=True))
        messages = [(timetoken, _readable(fields)) for timetoken, (_, fields) in pairs]
        unfinished = {timetoken: left for timetoken, (left, _) in pairs if left}
        return messages, unfinished

    @retried
    async def read(self, channel: str, identities: Sequence[Identity]) -> list[Entry]:
        """Return these identities' entries, in order."""
        pipe = self._redis.pipeline(transaction=False)
        for asked in identities:
            message = asked.message_timetoken
            field = action_field(asked.type, asked.value, asked.uuid)
            pipe.hget(self._keys.actions(channel, message), field)
            pipe.hget(self._keys.removed(channel, message), field)
        answers = await pipe.execute()
        pairs = zip(answers[::2], answers[1::2], strict=True)
        return [Entry(live, removed) for live, removed in pairs]

    @retried
    async def count(self, channel: str) -> int:
        """Return how many live entries the channel has."""
        count = 0
        async for timetokens in self.messages(channel):
            count += sum(await self._sizes(channel, timetokens))
        return count

    @retried
    async def piece(self, channel: str, until: Timetoken | None) -> Range:
        """Return a piece of the channel's past that ends at ``until`` (exclusive).

        It has some twenty thousand entries. The oldest piece has no begin.
        """
        index = self._keys.messages(channel)
        newest = f"({milliseconds(until)}" if until else "+inf"
        scored = await self._redis.zrevrangebyscore(
            index, newest, "-inf", start=0, num=PIECE_MESSAGES, withscores=True
        )
        sizes = await self._sizes(channel, [timetoken for timetoken, _ in scored])
        for (_, score), total in zip(scored, accumulate(sizes), strict=True):
            if total >= PIECE_ENTRIES:
                return Range(str(int(score) * TICKS_PER_MILLISECOND), until)
        if len(scored) < PIECE_MESSAGES:
            return Range(None, until)
        oldest_score = int(scored[-1][1])
        return Range(str(oldest_score * TICKS_PER_MILLISECOND), until)

    async def _sizes(self, channel: str, timetokens: Sequence[Timetoken]) -> list[int]:
        """Return how many live entries each message has."""
        keys = [self._keys.actions(channel, timetoken) for timetoken in timetokens]
        return await self._each("hlen", keys)

    @retried
    async def has_any(self, channel: str) -> bool:
        """Tell whether the channel has a live entry."""
        async for messages in self.scan(channel):
            if any(fields for _, fields in messages):
                return True
        return False

    @retried
    async def oldest_kept(self, retention_seconds: int) -> Timetoken | None:
        """Return the oldest timetoken of a message that has not expired, as in the scripts.

        None if messages are kept for ever: 0 seconds.
        """
        if not retention_seconds:
            return None
        seconds, _ = await self._redis.time()
        return f"{int(seconds) - retention_seconds}0000000"


def _readable(fields: Mapping[str, Timetoken]) -> Mapping[str, Timetoken]:
    """Return the fields that the worker may have written: all but those a hand has made."""
    if all(map(is_readable, fields, fields.values())):
        return fields
    return {field: at for field, at in fields.items() if is_readable(field, at)}


def is_readable(field: str, timetoken: Timetoken) -> bool:
    """Tell whether an action belongs to somebody, and has a time."""
    return field.count(":") > 1 and timetoken.encode().isdigit()


def _may_have_older(scan: Scan, than: Timetoken) -> bool:
    scan_cursor, scored = scan
    if scan_cursor:
        return True
    # As in the scripts: a timetoken of another length has no age.
    dated = [timetoken for timetoken, _ in scored if len(timetoken) == len(than)]
    return min(dated, default=than) < than


def _has_pubnub_digits(timetoken: Timetoken) -> bool:
    return len(timetoken) == PUBNUB_DIGITS
