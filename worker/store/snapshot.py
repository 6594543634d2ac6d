"""One message as it is now, and where the journal ends."""

from collections.abc import Mapping
from dataclasses import dataclass

from redis.asyncio import Redis

from reaction_tally.journal import START
from reaction_tally.keys import Keys, read_action_field
from reaction_tally.operations import read_counts
from worker.domain.position import Timetoken
from worker.domain.tally import Counts
from worker.store.redis_errors import redis_errors


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One message, when the journal ended at ``head``."""

    head: str
    counts: Counts
    users: Mapping[str, Mapping[str, Mapping[str, Timetoken]]]
    """type → value → uuid → action timetoken."""


async def read_snapshot(
    redis: Redis,
    keys: Keys,
    channel: str,
    message: Timetoken,
) -> Snapshot:
    """Read a message in one transaction."""
    pipe = redis.pipeline(transaction=True)
    pipe.get(keys.head(channel))
    pipe.hgetall(keys.counts(channel, message))
    pipe.hgetall(keys.actions(channel, message))
    with redis_errors():
        head, counts, actions = await pipe.execute()
    users: dict[str, dict[str, dict[str, Timetoken]]] = {}
    for field, action_timetoken in actions.items():
        type, value, uuid = read_action_field(field)
        users.setdefault(type, {}).setdefault(value, {})[uuid] = action_timetoken
    return Snapshot(head or START, read_counts(counts), users)
