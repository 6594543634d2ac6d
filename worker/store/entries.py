"""The entries in Redis, read back: what reconcile and verify compare with PubNub's list."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, Final, cast

from redis.asyncio import Redis

from worker.domain.action import Identity
from worker.domain.entry import Entry
from worker.domain.position import Timetoken, milliseconds
from worker.domain.seen_set import EntryKey
from worker.store.connection import redis_errors
from worker.store.keys import Keys, action_field, read_action_field
from worker.store.redis_retry import RedisRetry, retried

MESSAGES_AT_ONCE: Final = 100
FIELDS_AT_ONCE: Final = 2000
"""Of all messages asked about together; Redis gives more where a hash is small enough to be kept in one piece."""
LEAST_FIELDS: Final = 100
"""Of each of them."""
PUBNUB_DIGITS: Final = 17
"""A timetoken of PubNub's own has so many digits; a client may have sent anything as a message timetoken."""


Message = tuple[Timetoken, Mapping[str, Timetoken]]
"""A message timetoken, and live entries of that message: field of the ``actions`` hash → action timetoken."""


def entry_keys(message: Message) -> Iterator[EntryKey]:
    """Return where a message's entries lie, and what is live there."""
    timetoken, fields = message
    return zip(repeat(timetoken), fields, fields.values(), strict=False)


def identity(channel: str, entry_key: EntryKey) -> Identity:
    """Return whose entry lies there."""
    message_timetoken, field, _ = entry_key
    return Identity(channel, message_timetoken, *read_action_field(field))


class Entries:
    """Reads entries. Nothing here writes."""

    def __init__(self, redis: Redis, keys: Keys, retry: RedisRetry | None = None) -> None:
        self._redis = cast("Any", redis)
        self._keys = keys
        self.retry = retry

    async def scan(
        self, channel: str, since: Timetoken | None = None
    ) -> AsyncIterator[list[Message]]:
        """Yield the channel's live entries, some thousand at once; each at least once if it is live all the while.

        With ``since``, messages are left out that no event has touched since then: their actions are all older.

        Raises:
            RedisUnavailableError: begin again.
        """
        async for messages in self.messages(channel, milliseconds(since) if since else 0):
            entry_keys = dict.fromkeys(messages, 0)
            while entry_keys:
                found, entry_keys = await self._some(channel, entry_keys)
                yield found

    @retried
    async def read(self, channel: str, identities: Sequence[Identity]) -> list[Entry]:
        """Return the entries of these identities, in their order; one round trip.

        Raises:
            RedisUnavailableError: try again.
        """
        pipe = self._redis.pipeline(transaction=False)
        for identity in identities:
            field = action_field(identity.type, identity.value, identity.uuid)
            pipe.hget(self._keys.actions(channel, identity.message_timetoken), field)
            pipe.hget(self._keys.removed(channel, identity.message_timetoken), field)
        told = await pipe.execute()
        return [Entry(live, removed) for live, removed in zip(told[::2], told[1::2], strict=True)]

    @retried
    async def has_any(self, channel: str) -> bool:
        """Tell whether the channel has a live entry.

        Raises:
            RedisUnavailableError: try again.
        """
        async for batch in self.scan(channel):
            if any(fields for _, fields in batch):
                return True
        return False

    @retried
    async def oldest(self, channel: str) -> Timetoken | None:
        """Return the oldest message of the channel; no action can be older. None if none tells its age.

        Raises:
            RedisUnavailableError: try again.
        """
        oldest: Timetoken | None = None
        async for messages in self.messages(channel):
            dated = [message for message in messages if len(message) == PUBNUB_DIGITS]
            oldest = min([*dated, oldest] if oldest else dated, default=None)
        return oldest

    async def messages(
        self, channel: str, since_milliseconds: int = 0
    ) -> AsyncIterator[list[Timetoken]]:
        """Yield the channel's message timetokens, some hundred at once, whose newest event is not older than that.

        Raises:
            RedisUnavailableError: begin again.
        """
        entry_key = 0
        while True:
            with redis_errors():
                entry_key, scored = await self._redis.zscan(
                    self._keys.messages(channel), int(entry_key), count=MESSAGES_AT_ONCE
                )
            messages = [message for message, score in scored if float(score) >= since_milliseconds]
            for start in range(0, len(messages), MESSAGES_AT_ONCE):
                yield messages[start : start + MESSAGES_AT_ONCE]
            if not int(entry_key):
                return

    async def _some(
        self, channel: str, entry_keys: dict[str, int]
    ) -> tuple[list[Message], dict[str, int]]:
        # A message that a whole room reacted to is soon the only one left: then it is read in larger pieces.
        count = max(LEAST_FIELDS, FIELDS_AT_ONCE // len(entry_keys))
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            for message, entry_key in entry_keys.items():
                pipe.hscan(self._keys.actions(channel, message), entry_key, count=count)
            told = await pipe.execute()
        found = [(message, fields) for message, (_, fields) in zip(entry_keys, told, strict=True)]
        left = {
            message: int(entry_key)
            for message, (entry_key, _) in zip(entry_keys, told, strict=True)
            if int(entry_key)
        }
        return found, left
