"""One message at one instant: counts, users, and the journal's position."""

from collections.abc import Mapping
from dataclasses import dataclass

from redis.asyncio import Redis

from worker.domain.position import Timetoken
from worker.domain.tally import Counts
from worker.store.journal import START
from worker.store.keys import Keys, read_action_field
from worker.store.reader import read_counts
from worker.store.redis_errors import redis_errors

Users = Mapping[str, Mapping[str, Mapping[str, Timetoken]]]
"""type → value → uuid → action timetoken."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What Redis held when the journal ended at ``head``."""

    head: str
    counts: Counts
    users: Users


async def read_snapshot(
    redis: Redis, keys: Keys, channel: str, message_timetoken: Timetoken
) -> Snapshot:
    """Read a message in one transaction.

    Its counts follow from the journal up to ``head``, and from nothing later.

    Raises:
        RedisUnavailableError: Redis does not answer.
    """
    pipe = redis.pipeline(transaction=True)
    pipe.get(keys.head(channel))
    pipe.hgetall(keys.counts(channel, message_timetoken))
    pipe.hgetall(keys.actions(channel, message_timetoken))
    with redis_errors():
        head, counts, actions = await pipe.execute()
    return Snapshot(head or START, read_counts(counts), _users(actions))


def _users(fields: Mapping[str, str]) -> Users:
    users: dict[str, dict[str, dict[str, Timetoken]]] = {}
    for field, action_timetoken in fields.items():
        type, value, uuid = read_action_field(field)
        values = users.setdefault(type, {})
        values.setdefault(value, {})[uuid] = action_timetoken
    return users
