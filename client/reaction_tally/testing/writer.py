"""Writes tallies as a worker writes them: see ``CONTRACT.md``."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from reaction_tally.journal import START, stream_order
from reaction_tally.keys import (
    HEARTBEAT_LIFE_SECONDS,
    RANKED_ABOVE,
    SCHEMA,
    WHO_EPOCH,
    Keys,
    encoded_channel,
    read_action_field,
    tally_of,
)
from reaction_tally.testing.action import Action

TOMBSTONE_SECONDS: Final = 3_600
JOURNAL_SECONDS: Final = 86_400
TICKS_PER_MILLISECOND: Final = 10_000


class TallyWriter:
    """Writes the tallies of one namespace. One thread at a time may use it."""

    def __init__(self, redis: Any, namespace: str) -> None:
        """``redis`` decodes responses, and does not wait."""
        self._redis = redis
        self._keys = Keys(namespace)

    def claim(self) -> None:
        """Write that these are tallies, as a worker does when it starts."""
        self._redis.hset(self._keys.meta, "schema", SCHEMA)
        self.set_heartbeat_age(0)

    def set_heartbeat_age(self, seconds: float | None) -> None:
        """Write that a worker's last heartbeat was so long ago; None: there was none."""
        key = self._keys.subscriptions
        if seconds is None:
            self._redis.delete(key)
            return
        left = HEARTBEAT_LIFE_SECONDS - seconds
        self._redis.hset(key, "fake", "")
        self._redis.pexpire(key, round(1000 * left))

    def live(self, action: Action) -> str | None:
        """Return the timetoken of an action; None if there is none."""
        _, actions, _ = self._message(action)
        timetoken: str | None = self._redis.hget(actions, action.field)
        return timetoken

    def add(self, action: Action, timetoken: str) -> None:
        """Write an action that is new."""
        counts, actions, _ = self._message(action)
        count = self._count(action) + 1
        with self._change("added", action, timetoken, count, timetoken) as pipe:
            pipe.hset(counts, action.tally, count)
            pipe.hset(actions, action.field, timetoken)
            self._rank_added(pipe, action, timetoken)

    def remove(self, action: Action, timetoken: str, now: str) -> None:
        """Write that an action, added at ``timetoken``, is removed."""
        counts, actions, removed = self._message(action)
        count = self._count(action) - 1
        with self._change("removed", action, timetoken, count, now) as pipe:
            if count:
                pipe.hset(counts, action.tally, count)
            else:
                pipe.hdel(counts, action.tally)
            pipe.hdel(actions, action.field)
            pipe.hset(removed, action.field, timetoken)
            pipe.expire(removed, TOMBSTONE_SECONDS)
            self._rank_removed(pipe, action)

    def set_in_doubt(self, channel: str, is_in_doubt: bool) -> None:
        """Write that a channel is owed a repair, or is not."""
        owed = self._keys.owed(channel)
        if is_in_doubt:
            milliseconds = time.time_ns() // 1_000_000
            self._redis.hset(owed, "overflow", milliseconds)
        else:
            self._redis.delete(owed)

    @contextmanager
    def _change(
        self,
        event: str,
        action: Action,
        timetoken: str,
        count: int,
        happened: str,
    ) -> Iterator[Any]:
        """Write what the block writes together with journal and index."""
        keys, channel = self._keys, action.channel
        messages, journal, head = keys.changed(channel)
        message = action.message_timetoken
        after = self._redis.get(head) or START
        entry_id = next_id(after)
        change = f"{event} applied {timetoken} {count} {message} {action.field}"
        entry = {"after": after, "origin": "live", "0": change}
        with self._redis.pipeline(transaction=True) as pipe:
            yield pipe
            pipe.xadd(journal, entry, id=entry_id)
            pipe.expire(journal, JOURNAL_SECONDS)
            pipe.set(head, entry_id)
            milliseconds = int(happened) // TICKS_PER_MILLISECOND
            pipe.zadd(messages, {message: milliseconds}, gt=True)
            pipe.sadd(keys.channels, channel)
            pipe.publish(keys.hints, f"{encoded_channel(channel)} {entry_id}")
            pipe.execute()

    def _rank_added(self, pipe: Any, action: Action, timetoken: str) -> None:
        """Write who keys: of one more action, or of all if the message becomes ranked."""
        _, actions, _ = self._message(action)
        size = self._redis.hlen(actions)
        added = {}
        if size == RANKED_ABOVE:
            added = self._redis.hgetall(actions)
        if size >= RANKED_ABOVE:
            added[action.field] = timetoken
        for field, at in added.items():
            _, _, user = read_action_field(field)
            pipe.zadd(self._who(action, tally_of(field)), {user: int(at) - WHO_EPOCH})

    def _rank_removed(self, pipe: Any, action: Action) -> None:
        """Remove a user from a who key, or all of these keys if the message is ranked no more."""
        counts, actions, _ = self._message(action)
        size = self._redis.hlen(actions)
        if size == RANKED_ABOVE + 1:
            tallies = self._redis.hkeys(counts)
            pipe.delete(*(self._who(action, tally) for tally in tallies))
        elif size > RANKED_ABOVE:
            pipe.zrem(self._who(action, action.tally), action.user)

    def _who(self, action: Action, tally: str) -> str:
        return self._keys.who(action.channel, action.message_timetoken, tally)

    def _count(self, action: Action) -> int:
        counts, _, _ = self._message(action)
        return int(self._redis.hget(counts, action.tally) or 0)

    def _message(self, action: Action) -> tuple[str, str, str]:
        return self._keys.message(action.channel, action.message_timetoken)


def next_id(after: str) -> str:
    """Return the id of an entry that follows another one."""
    milliseconds, number = stream_order(after)
    now = time.time_ns() // 1_000_000
    if now > milliseconds:
        return f"{now}-0"
    return f"{milliseconds}-{number + 1}"
